"""How a reference is merged: the method and its settings, each refused where it could have no effect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

Method: TypeAlias = Literal["linear", "ties", "dare_linear", "dare_ties", "emr"]
METHODS: tuple[Method, ...] = get_args(Method)
DENSITY = 0.2
"""Part of each task vector that is kept by default (paper, section 4)."""


@dataclass(frozen=True)
class Recipe:
    """pi_alpha = pi_base + alpha * tau, and how tau is made of the task vectors pi_member - pi_base.

    | method | tau |
    |---|---|
    | `linear` | the policy's task vector |
    | `ties` | the largest values of each task vector; of several, the mean of those with the elected sign |
    | `dare_linear` | values kept at random, divided by the density; of several, their sum |
    | `dare_ties` | the same, only those with the elected sign |
    | `emr` | the largest values with the elected sign, where the first vector has it too, at that vector's mean size |

    With one task vector `ties` only trims, `dare_ties` is `dare_linear` and `emr` is `linear`.

    Args:
        method: one of `METHODS`.
        density: part of the values that `ties` and `dare` keep, in (0, 1]; None is `DENSITY`.
        seed: of what `dare` keeps; None is 0.

    Raises:
        ValueError: an unknown method, a value outside what is allowed, or a setting that the method does not read.
    """

    method: Method = "linear"
    density: float | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method is {self.method!r}; allowed: {', '.join(map(repr, METHODS))}")
        if self.density is not None:
            if not self.sparse:
                raise ValueError(f"density is {self.density!r} and has no effect with {self.method!r}; leave it out")
            if not 0 < self.density <= 1:
                raise ValueError(f"density is {self.density!r}; allowed: a part of the values, above 0 and up to 1")
        if self.seed is not None:
            if not self.random:
                raise ValueError(f"seed is {self.seed!r} and has no effect with {self.method!r}; leave it out")
            if self.seed < 0:
                raise ValueError(f"seed is {self.seed!r}; allowed: a whole number from 0 on")

    @property
    def random(self) -> bool:
        """Whether values are kept at random."""
        return self.method in ("dare_linear", "dare_ties")

    @property
    def sparse(self) -> bool:
        """Whether only a part of the values is kept."""
        return self.random or self.method == "ties"

    def to_dict(self) -> Mapping[str, str | float | int]:
        """The method, and what it reads with the defaults filled in."""
        told: dict[str, str | float | int] = {"method": self.method}
        if self.sparse:
            told["density"] = DENSITY if self.density is None else self.density
        if self.random:
            told["seed"] = self.seed or 0
        return told


def checked_alpha(alpha: float) -> float:
    """Alpha, if it lies between the reference and the policy.

    Raises:
        ValueError: it does not.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha!r}; allowed: 0 (the reference) to 1 (the policy)")
    return float(alpha)
