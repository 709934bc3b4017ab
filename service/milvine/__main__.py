"""`python -m milvine` is the `milvine` command."""

from milvine.cli import main

main()
