"""Every decision as a table: rules and a script, and what has to come of it, however the agent is built."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from guard.agents import ByArgument, Failing, How, Scripted, World, act, enforced, run, say
from langchain_core.messages import AIMessage, ToolMessage
from langgraph.types import Command

from pa_middleware import Rules

CONFIG: Any = {"configurable": {"thread_id": "t"}}
STOP = Rules().abstain_message

APPROVE = {"type": "approve"}
REJECT = {"type": "reject"}
RESPOND = {"type": "respond", "message": "by hand"}


def edit(x: float) -> dict[str, Any]:
    """A human's edit of a call."""
    return {"type": "edit", "edited_action": {"name": "act", "args": {"x": x}}}


@dataclass(frozen=True)
class Case:
    """One run of an agent."""

    rules: Rules
    replies: Sequence[AIMessage]
    """What the model answers, all of it."""
    ran: Sequence[float]
    """Arguments of the calls that ran, sorted."""
    decisions: Sequence[str]
    """Of all records, in order, a human's among them."""
    final: str
    refused: int = 0
    """Calls answered by an error message."""
    human: Sequence[dict[str, Any]] = ()
    """What the human answers to the one question; none is asked if it is empty."""
    scorer: Callable[[], Any] = ByArgument


def low(**settings: Any) -> Rules:
    """Rules under which what is below zero is low."""
    return enforced(threshold=0.0, **settings)


def down(*then: Any) -> Callable[[], Any]:
    """A scorer that fails at once, and then does what it is told."""
    return lambda: Failing(ValueError("down"), *then)


CASES: dict[str, Case] = {
    "pass": Case(low(), [act(1), say(2)], [1.0], ["pass"] * 2, "done #2"),
    "pass at the threshold": Case(enforced(threshold=1.0), [act(1), say(1)], [1.0], ["pass"] * 2, "done #1"),
    "pass without a threshold": Case(enforced(), [act(-9), say(-9)], [-9.0], ["pass"] * 2, "done #-9"),
    "pass two calls": Case(low(), [act(1, 2), say(1)], [1.0, 2.0], ["pass"] * 2, "done #1"),
    "resample": Case(low(draws=3), [act(-1), act(-2), act(3), say(1)], [3.0], ["pass"] * 2, "done #1"),
    "resample an answer": Case(low(draws=2), [say(-1), say(1)], [], ["pass"], "done #1"),
    "resample, and abstain": Case(low(draws=2), [act(-1), act(-2)], [], ["abstain"], STOP),
    "resample within the budget of the run": Case(
        low(draws=3, draws_per_run=3), [act(-1), act(1), act(-1)], [1.0], ["pass", "abstain"], STOP
    ),
    "best of two": Case(
        enforced(draws=2, select="best"), [act(-2), act(-1), say(1), say(2)], [-1.0], ["pass"] * 2, "done #2"
    ),
    "best of two, and the first is it": Case(
        enforced(draws=2, select="best"), [act(2), act(1), say(2), say(1)], [2.0], ["pass"] * 2, "done #2"
    ),
    "abstain": Case(low(), [act(-1)], [], ["abstain"], STOP),
    "abstain later": Case(low(), [act(1), act(-1)], [1.0], ["pass", "abstain"], STOP),
    "abstain from an answer": Case(low(), [act(1), say(-1)], [1.0], ["pass", "abstain"], STOP),
    "abstain from two calls": Case(low(), [act(-3, 1)], [], ["abstain"], STOP),
    "abstain from an empty action": Case(low(on_low="flag"), [AIMessage("")], [], ["abstain"], STOP),
    "flag": Case(low(on_low="flag"), [act(-1), say(1)], [-1.0], ["flag", "pass"], "done #1"),
    "flag the best": Case(
        low(draws=2, on_low="flag"), [act(-1), act(-2), say(1)], [-1.0], ["flag", "pass"], "done #1"
    ),
    "flag an answer": Case(low(on_low="flag"), [say(-1)], [], ["flag"], "done #-1"),
    "block one of three": Case(
        low(on_low="block"), [act(1, -1, 2), say(1)], [1.0, 2.0], ["block", "pass"], "done #1", refused=1
    ),
    "block all": Case(low(on_low="block"), [act(-1, -2), say(1)], [], ["block", "pass"], "done #1", refused=2),
    "block after resampling": Case(
        low(on_low="block", draws=2), [act(1, -1), act(1, -2), say(1)], [1.0], ["block", "pass"], "done #1", refused=1
    ),
    "block nothing in an answer": Case(low(on_low="block"), [say(-1)], [], ["abstain"], STOP),
    "escalate, approve": Case(
        low(on_low="escalate"), [act(-1), say(1)], [-1.0], ["escalate", "pass", "pass"], "done #1", human=[APPROVE]
    ),
    "escalate, reject": Case(
        low(on_low="escalate"), [act(-1), say(1)], [], ["escalate", "block", "pass"], "done #1", 1, [REJECT]
    ),
    "escalate, respond": Case(
        low(on_low="escalate"), [act(-1), say(1)], [], ["escalate", "block", "pass"], "done #1", 0, [RESPOND]
    ),
    "escalate, edit": Case(
        low(on_low="escalate"), [act(-1), say(1)], [5.0], ["escalate", "pass", "pass"], "done #1", 0, [edit(5)]
    ),
    "escalate, edit to a low call": Case(
        low(on_low="escalate"), [act(-1), say(1)], [], ["escalate", "block", "pass"], "done #1", 1, [edit(-5)]
    ),
    "escalate, trusted edit": Case(
        low(on_low="escalate", trust_human_edits=True),
        [act(-1), say(1)],
        [-5.0],
        ["escalate", "pass", "pass"],
        "done #1",
        human=[edit(-5)],
    ),
    "escalate two of four": Case(
        low(on_low="escalate"),
        [act(1, -9, 2, -8), say(1)],
        [-8.0, 1.0, 2.0],
        ["escalate", "pass", "pass"],
        "done #1",
        1,
        [REJECT, APPROVE],
    ),
    "escalate after resampling": Case(
        low(on_low="escalate", draws=2),
        [act(-2), act(-1), say(1)],
        [-1.0],
        ["escalate", "pass", "pass"],
        "done #1",
        human=[APPROVE],
    ),
    "escalate nothing in an answer": Case(low(on_low="escalate"), [say(-1)], [], ["abstain"], STOP),
    "scorer error, abstain": Case(low(), [act(1)], [], ["abstain"], STOP, scorer=down()),
    "scorer error, flag": Case(
        low(on_scorer_error="flag"), [act(-1), say(-1)], [-1.0], ["flag"] * 2, "done #-1", scorer=down()
    ),
    "scorer error, flag, and it recovers": Case(
        low(on_scorer_error="flag"), [act(-1), say(1)], [-1.0], ["flag", "pass"], "done #1", scorer=down(None)
    ),
    "scorer error, escalate, approve": Case(
        low(on_scorer_error="escalate"),
        [act(-1, 2), say(1)],
        [-1.0, 2.0],
        ["escalate", "pass", "pass"],
        "done #1",
        human=[APPROVE, APPROVE],
        scorer=down(None),
    ),
    "scorer error, escalate, reject": Case(
        low(on_scorer_error="escalate"),
        [act(1), say(1)],
        [],
        ["escalate", "block", "pass"],
        "done #1",
        1,
        [REJECT],
        down(None),
    ),
    "own thresholds of kinds": Case(
        low(thresholds={"irreversible": 5.0, "final_answer": None}, tools={"a*": "irreversible"}, draws=2),
        [act(4), act(6), say(-9)],
        [6.0],
        ["pass"] * 2,
        "done #-9",
    ),
    "shadow, abstain": Case(
        low(mode="shadow", draws=3), [act(-1), say(-2)], [-1.0], ["abstain"] * 2, "done #-2"
    ),
    "shadow, block": Case(
        low(mode="shadow", on_low="block"), [act(1, -1), say(1)], [-1.0, 1.0], ["block", "pass"], "done #1"
    ),
    "shadow, escalate": Case(
        low(mode="shadow", on_low="escalate"), [act(-1), say(1)], [-1.0], ["escalate", "pass"], "done #1"
    ),
    "shadow, scorer error": Case(
        low(mode="shadow"), [act(-1), say(1)], [-1.0], ["abstain"] * 2, "done #1", scorer=down()
    ),
    "shadow, since nobody calibrated the threshold": Case(
        Rules(threshold=0.0), [act(-1), say(-1)], [-1.0], ["abstain"] * 2, "done #-1"
    ),
}  # fmt: skip


def play(case: Case, graph: Any, world: World, model: Scripted, how: How) -> None:
    """Run a case on a graph with a checkpointer, and hold the run to what has to come of it."""
    final = run(graph, config=CONFIG, how=how)
    if case.human:
        [question] = final["__interrupt__"]
        assert len(question.value["action_requests"]) == len(case.human)
        assert world.ran == [], "no tool of the step runs before the answer"
        command: Command[Any] = Command(resume={"decisions": list(case.human)})
        final = graph.invoke(command, CONFIG) if how == "sync" else asyncio.run(graph.ainvoke(command, CONFIG))
    assert "__interrupt__" not in final
    records = graph.get_state(CONFIG).values["pa"]
    messages: list[Any] = final["messages"]
    assert sorted(world.ran) == case.ran
    assert [record["decision"] for record in records] == case.decisions
    assert messages[-1].text == case.final
    assert len(model.asked) == len(case.replies)
    actions = [message for message in messages if isinstance(message, AIMessage)]
    assert [record["id"] for record in records if record["by"] == "rules"] == [action.id for action in actions]
    calls = [call["id"] for action in actions for call in action.tool_calls]
    answers = [message for message in messages if isinstance(message, ToolMessage)]
    assert sorted(map(str, calls)) == sorted(answer.tool_call_id for answer in answers), "no call is left dangling"
    assert sum(answer.status == "error" for answer in answers) == case.refused
