"""Whether a number can be a setting."""

from __future__ import annotations

import math


def positive(name: str, value: float) -> float:
    """The value.

    Raises:
        ValueError: it is not finite, or not above 0.
    """
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} is {value!r}; allowed: a finite number above 0")
    return value


def not_negative(name: str, value: float) -> float:
    """The value.

    Raises:
        ValueError: it is not finite, or below 0.
    """
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} is {value!r}; allowed: a finite number from 0 on")
    return value


def whole(name: str, value: int, least: int) -> int:
    """The value.

    Raises:
        ValueError: it is no whole number, or below the least allowed.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} is {value!r}; allowed: a whole number from {least} on")
    return value
