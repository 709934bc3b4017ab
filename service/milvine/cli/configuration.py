"""The settings as commands read them: faults in one line, secrets masked."""

from __future__ import annotations

import re
from enum import Enum
from pathlib import Path

from pydantic import SecretStr, ValidationError

from milvine.domain.errors import InvalidArgument, Violation
from milvine.settings import Settings

_USER_PASSWORD = re.compile(r"(?<=://)([^:/@]*):.*@")
_SECRET_PARAMETER = re.compile(r"\b(password|token|secret|key)=[^&]*", re.IGNORECASE)


def load_settings() -> Settings:
    """The settings of this process; raises InvalidArgument naming each variable that is wrong."""
    try:
        return Settings()
    except ValidationError as exc:
        raise InvalidArgument(
            Violation(
                f"MILVINE_{'_'.join(map(str, fault['loc'])).upper()}",
                fault["msg"].removeprefix("Value error, "),
            )
            for fault in exc.errors()
        ) from exc


def masked(value: object) -> str | int | float | None:
    """The value of a setting without the secrets in it."""
    match value:
        case None | int() | float():
            return value
        case SecretStr():
            return str(value)
        case Enum():
            return str(value.value)
        case str() | Path():
            text = _USER_PASSWORD.sub(r"\1:***@", str(value))
            return _SECRET_PARAMETER.sub(r"\1=***", text)
        case _:
            return str(value)
