# Every target sets up what it needs: `make test` is enough in a fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
SITE = $(shell $(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
PROTOC = PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -Iprotos \
	-I"google/longrunning/operations.proto=$(SITE)/google/longrunning/operations_proto.proto" -I$(SITE)
CODE := service tests demo
PROTOS := $(wildcard protos/milvine/v1/*.proto)
SERVICES := $(wildcard protos/milvine/v1/*_service.proto)

# What `make bench-quality` measures: a data set's folder, a family of models, lite or server.
DATA ?= $(or $(MILVINE_DATA),data)/gowalla
MODEL ?= als
VECTORS ?= lite
ENCODER ?= hashing
MOVIELENS := build/demo/ml-100k.inter

.PHONY: bench bench-cold bench-quality bench-ingest bench-serving bench-bulk bench-streaming bench-training up down
.PHONY: setup demo run test check protos image fmt ci clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade-strategy only-if-needed -c constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev,test]'
	touch $@

# ARGS=--keep leaves the server running.
demo: setup
	$(BIN)/python demo/movielens.py $(ARGS)

run: setup
	$(BIN)/milvine serve $(ARGS)

protos: setup
	rm -f service/milvine/v1/*_pb2*
	$(PROTOC) --python_out=service --mypy_out=quiet:service $(PROTOS)
	$(PROTOC) --grpc_python_out=service --mypy_grpc_out=quiet:service $(SERVICES)

image: setup
	mkdir -p build
	$(PROTOC) --include_imports --include_source_info --descriptor_set_out=build/api.binpb $(PROTOS)

fmt: setup
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/buf format --path protos -w

check: setup image
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/buf format --path protos --diff --exit-code
	$(BIN)/buf lint build/api.binpb --config buf.yaml
	$(BIN)/buf breaking build/api.binpb --against protos/baseline.binpb --config buf.yaml
	$(MAKE) protos && git diff --exit-code --stat -- service/milvine/v1

test: check $(MOVIELENS)
	$(BIN)/python -m pytest

$(MOVIELENS): | $(STAMP)
	$(BIN)/python demo/movielens.py --fetch

bench: bench-ingest bench-quality bench-serving bench-filters bench-exclude

bench-quality: setup
	$(BIN)/python -m tests.bench.quality "$(DATA)" --model "$(MODEL)" --vectors "$(VECTORS)"

# DATA is a folder of goodbooks-10k; ENCODER=minilm needs the extra `text`.
bench-cold: setup
	$(BIN)/python -m tests.bench.cold "$(DATA)" --model "$(MODEL)" --encoder "$(ENCODER)"

bench-ingest: setup
	$(BIN)/python -m tests.bench.ingest

# MODEL=als measures ALS alone, else every family.
bench-training: setup
	$(BIN)/python -m tests.bench.training "$(DATA)" $(if $(filter command,$(firstword $(origin MODEL))),--model "$(MODEL)")

bench-serving: setup
	$(BIN)/python -m tests.bench.serving

bench-filters: setup
	$(BIN)/python -m tests.bench.filters

bench-exclude: setup
	$(BIN)/python -m tests.bench.exclude

bench-bulk: setup
	$(BIN)/python -m tests.bench.bulk

bench-streaming: setup
	$(BIN)/python -m tests.bench.streaming

up:
	docker compose up --build --detach --wait

down:
	docker compose down

ci: test

clean:
	rm -rf $(VENV) build
