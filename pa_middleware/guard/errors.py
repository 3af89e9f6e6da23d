"""What is wrong with how a guard was set up or placed; never about a score."""

from __future__ import annotations


class RulesError(ValueError):
    """A setting of the rules is unknown, outside what is allowed, or can have no effect."""


class GuardError(RuntimeError):
    """The graph around the guard does not let it keep its promises; nothing was executed."""


class NoActionError(GuardError):
    """What was drawn does not hold exactly one action that can be looked into."""
