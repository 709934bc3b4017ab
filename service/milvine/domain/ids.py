"""Ids of the service's own resources."""

from __future__ import annotations

import secrets
import time

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_TIME_LENGTH = 9
_RANDOM_LENGTH = 10


def new_id(prefix: str) -> str:
    """A new id of 20 characters of [a-z0-9]: the prefix (one letter), the time, chance.

    Ids of one prefix sort by the millisecond of their making. With 51 bits of chance, two of the
    same millisecond differ.
    """
    return prefix + _time(time.time_ns() // 1_000_000) + _chance()


def _time(millis: int) -> str:
    digits = []
    for _ in range(_TIME_LENGTH):
        millis, digit = divmod(millis, 36)
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))


def _chance() -> str:
    return "".join(secrets.choice(_DIGITS) for _ in range(_RANDOM_LENGTH))
