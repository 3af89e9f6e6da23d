"""Tiers: where the tier of a tool comes from, and what it makes of an action."""

from __future__ import annotations

from typing import Any

import pytest
from guard.agents import ByArgument, Scripted, World, agent_node, build, enforced, run, say
from langchain_core.messages import AIMessage
from langchain_core.tools import BaseTool, tool
from langgraph.prebuilt import ToolNode

from pa_middleware import Guard, RulesError
from pa_middleware.guard.tiers import Tier, kind_of, tier_of

HINTS: list[tuple[dict[str, Any], str]] = [
    ({}, "default"),
    ({"readOnlyHint": True}, "read_only"),
    ({"readOnlyHint": False}, "default"),
    ({"destructiveHint": True}, "irreversible"),
    ({"destructiveHint": False}, "default"),
    ({"readOnlyHint": True, "destructiveHint": True}, "irreversible"),
    ({"annotations": {"readOnlyHint": True}}, "read_only"),
    ({"annotations": None}, "default"),
    ({"readOnlyHint": "yes"}, "default"),
    ({"pa_tier": "read_only", "destructiveHint": True}, "read_only"),
]


@pytest.mark.parametrize(("metadata", "tier"), HINTS)
def test_a_tools_metadata_tell_its_tier_and_of_two_hints_the_riskier_counts(
    metadata: dict[str, Any], tier: str
) -> None:
    assert tier_of("t", {}, metadata) == tier


def test_the_rules_overrule_the_tools_metadata_and_a_name_goes_before_every_glob() -> None:
    rules: dict[str, Tier] = {"db_*": "irreversible", "db_read*": "read_only", "db_read_all": "default"}
    assert tier_of("db_drop", rules, {"readOnlyHint": True}) == "irreversible"
    assert tier_of("db_read", rules) == "irreversible", "globs go in order"
    assert tier_of("db_read_all", rules) == "default"
    assert tier_of("other", rules, {"readOnlyHint": True}) == "read_only"


def test_a_tier_that_is_none_is_an_error_that_names_the_tool() -> None:
    with pytest.raises(RulesError, match=r"metadata\['pa_tier'\] of the tool 'rm' is 'risky'; allowed: 'read_only'"):
        tier_of("rm", {}, {"pa_tier": "risky"})


def test_an_action_is_of_the_kind_of_its_riskiest_call() -> None:
    assert kind_of(["read_only", "irreversible", "default"]) == "irreversible"
    assert kind_of(["read_only", "default"]) == "default"
    assert kind_of(["read_only"]) == "read_only"
    assert kind_of([]) == "final_answer"


class Tiered(World):
    """A tool of each tier; the third has it from its metadata."""

    def __init__(self) -> None:
        super().__init__()
        self.tools = [self._tool(name) for name in ("look", "change", "destroy")]
        self.tools[2].metadata = {"destructiveHint": True}
        self.names: list[str] = []

    def _tool(self, name: str) -> BaseTool:
        @tool(name)
        def call(x: float) -> str:
            """Do something."""
            self.names.append(name)
            return "done"

        return call


def calls(**scores: float) -> AIMessage:
    return AIMessage("", tool_calls=[{"name": name, "args": {"x": x}, "id": name} for name, x in scores.items()])


RULES: dict[str, Any] = {
    "threshold": 0.0,
    "thresholds": {"read_only": None, "irreversible": 2.0, "final_answer": -5.0},
    "tools": {"look": "read_only"},
}


def guarded(world: Tiered, *replies: AIMessage, **settings: Any) -> dict[str, Any]:
    guard = Guard(ByArgument(), enforced(**RULES, **settings))
    node = agent_node(Scripted(replies=list(replies)))
    return run(build(guard, node, world, tools=ToolNode(world.tools)).compile())


CASES: dict[str, tuple[AIMessage, str, str]] = {
    "a tool that only reads is not judged": (calls(look=-9), "pass", "read_only"),
    "a tool of no tier is held to the common threshold": (calls(change=1), "pass", "default"),
    "a low one is stopped": (calls(change=-1), "abstain", "default"),
    "what cannot be undone is held to more": (calls(destroy=1), "abstain", "irreversible"),
    "and passes above that": (calls(destroy=3), "pass", "irreversible"),
    "the riskiest call counts": (calls(look=1, destroy=1), "abstain", "irreversible"),
    "an answer is held to its own": (say(-4), "pass", "final_answer"),
    "and stopped below it": (say(-6), "abstain", "final_answer"),
}


@pytest.mark.parametrize("name", CASES)
def test_an_action_is_held_to_the_threshold_of_its_kind(name: str) -> None:
    action, decision, kind = CASES[name]
    record = guarded(Tiered(), action, say(1))["pa"][0]
    assert (record["decision"], record["kind"]) == (decision, kind)
    assert record["threshold"] == {"read_only": None, "default": 0.0, "irreversible": 2.0, "final_answer": -5.0}[kind]


def test_block_holds_each_call_to_the_threshold_of_its_own_tier() -> None:
    world = Tiered()
    final = guarded(world, calls(look=-9, change=1, destroy=1), say(1), on_low="block")
    assert sorted(world.names) == ["change", "look"]
    entries = {entry["name"]: entry for entry in final["pa"][0]["calls"]}
    assert {name: (entry["tier"], entry["threshold"], entry["decision"]) for name, entry in entries.items()} == {
        "look": ("read_only", None, "pass"),
        "change": ("default", 0.0, "pass"),
        "destroy": ("irreversible", 2.0, "block"),
    }


def test_a_tier_for_a_tool_that_is_not_there_is_an_error_and_a_glob_is_not() -> None:
    world = Tiered()
    settings = {**RULES, "tools": {"destory": "irreversible"}}
    guard = Guard(ByArgument(), enforced(**settings))
    with pytest.raises(RulesError, match=r"tools\['destory'\] has no effect: .* the tools are look, change, destroy"):
        guard.gate(ToolNode(world.tools))
    with pytest.raises(RulesError, match="destory"):
        Guard(ByArgument(), enforced(**settings), tools=world.tools)
    Guard(ByArgument(), enforced(**{**RULES, "tools": {"rm*": "irreversible"}}), tools=world.tools)
