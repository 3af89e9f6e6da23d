"""How much can go wrong with a tool: its tier, and the kind of action that its calls make.

A tier is looked up in this order: the rules' own names, the rules' globs, the tool's metadata. Metadata are the tool
author's hints and may come from a foreign server, so the rules overrule them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args

from pa_middleware.guard.errors import RulesError

Tier = Literal["read_only", "default", "irreversible"]
"""Of a tool, by rising risk: it changes nothing; it changes something; what it changes cannot be undone."""
Kind = Literal["read_only", "default", "irreversible", "final_answer"]
"""Of an action: the riskiest tier among its tool calls, or `final_answer` if it calls none."""

TIERS: tuple[Tier, ...] = get_args(Tier)
KINDS: tuple[Kind, ...] = get_args(Kind)
METADATA = "pa_tier"
"""The key of a LangChain tool's `metadata` that names its tier."""


def tier_of(name: str, rules: Mapping[str, Tier], metadata: Mapping[str, Any] | None = None) -> Tier:
    """The tier of a tool.

    Args:
        name: the tool's.
        rules: name or glob -> tier; a name goes before every glob, and globs go in the order given.
        metadata: of the LangChain tool: `pa_tier`, else the annotations of the Model Context Protocol
            (`destructiveHint`, `readOnlyHint`). Where the two hints contradict each other, the riskier one counts.

    Raises:
        RulesError: `pa_tier` is no tier.
    """
    if name in rules:
        return rules[name]
    for pattern, tier in rules.items():
        if fnmatchcase(name, pattern):
            return tier
    return _hinted(name, metadata or {})


def kind_of(tiers: Iterable[Tier]) -> Kind:
    """The kind of an action whose calls have these tiers."""
    return max(tiers, key=TIERS.index, default="final_answer")


def unmatched(rules: Iterable[str], names: Collection[str]) -> list[str]:
    """The names among the keys of the rules that no tool has; a glob may match nothing."""
    return [name for name in rules if name not in names and not any(char in name for char in "*?[")]


def _hinted(name: str, metadata: Mapping[str, Any]) -> Tier:
    own = metadata.get(METADATA)
    if own is not None:
        if own not in TIERS:
            allowed = ", ".join(map(repr, TIERS))
            raise RulesError(f"metadata[{METADATA!r}] of the tool {name!r} is {own!r}; allowed: {allowed}")
        tier: Tier = own
        return tier
    nested = metadata.get("annotations")
    hints = {**(nested if isinstance(nested, Mapping) else {}), **metadata}
    if hints.get("destructiveHint") is True:
        return "irreversible"
    return "read_only" if hints.get("readOnlyHint") is True else "default"
