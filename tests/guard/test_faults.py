"""The fault table: whatever breaks, the rules' own decision, a degraded state for all to see, and nothing run unscored.

One row a fault, each through a guarded graph; what is particular to one part is tested where that part is.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pytest
import torch
from guard.agents import (
    ByArgument,
    Failing,
    How,
    Place,
    Scripted,
    World,
    act,
    agent_node,
    build,
    enforced,
    run,
    say,
    texts,
)
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.graph.message import MessagesState
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import Command
from opentelemetry.trace import StatusCode
from templates import tokenizer

from pa_middleware import Guard, GuardState, ModelPair, Rules, Scorer, Step, StepScore
from pa_middleware.guard.rules import OnLow, OnScorerError
from pa_middleware.scoring.errors import (
    ContextLengthError,
    PairError,
    ScoringError,
    ScoringTimeoutError,
    UnscorableActionError,
)
from pa_middleware.scoring.scorer import CandidateScore
from pa_middleware.tracing import conventions as names
from pa_middleware.tracing.attributes import error_type

if TYPE_CHECKING:
    from tracing.conftest import Backend
    from transformers import PreTrainedModel

CONFIG: Any = {"configurable": {"thread_id": "t"}}
NOT_APPROVED = "is not the one that was approved"

sync_and_async = pytest.mark.parametrize("how", ["sync", "async"])


class Stuck:
    """Gives no answer until it is let go."""

    def __init__(self) -> None:
        self.free = threading.Event()

    def score(self, steps: Sequence[Step]) -> list[StepScore]:
        self.free.wait()
        return ByArgument().score(steps)


@pytest.fixture
def stuck() -> Iterator[Stuck]:
    scorer = Stuck()
    yield scorer
    scorer.free.set()


Build = Callable[..., "PreTrainedModel"]


@pytest.fixture(scope="module")
def models(tiny: Build) -> tuple[PreTrainedModel, PreTrainedModel]:
    size = len(tokenizer("qwen3"))
    return tiny("llama", size, seed=1), tiny("llama", size, seed=2)


@pytest.fixture(scope="module")
def pair(models: tuple[PreTrainedModel, PreTrainedModel]) -> ModelPair:
    return ModelPair(*models, tokenizer("qwen3"))


@pytest.fixture(scope="module")
def short(models: tuple[PreTrainedModel, PreTrainedModel]) -> ModelPair:
    """A pair that can read less than the prompt."""
    return ModelPair(*models, tokenizer("qwen3"), max_length=16)


def answering(score: float) -> Callable[[Sequence[Step]], list[StepScore]]:
    """One score for whatever comes."""
    return lambda steps: [StepScore((CandidateScore(score, -1.0, -1.0, (1.0,)),))]


def down(steps: Sequence[Step]) -> list[StepScore]:
    """A scorer that cannot be reached."""
    raise RuntimeError("down")


# Fault -> the scorer, by the name of its fixture where it is one, and the error it shows as.
AT_FAULT: dict[str, tuple[Callable[[], Scorer] | str, type[Exception]]] = {
    "raises": (lambda: Failing(down), RuntimeError),
    "times out": ("stuck", ScoringTimeoutError),
    "not a number": (lambda: Failing(answering(math.nan)), ScoringError),
    "out of memory": (lambda: Failing(MemoryError()), MemoryError),
    "out of the accelerator's memory": (lambda: Failing(torch.OutOfMemoryError("CUDA")), torch.OutOfMemoryError),
    "tokenizers that differ": (lambda: Failing(PairError("differ")), PairError),
    "context too long": ("short", ContextLengthError),
}


@sync_and_async
@pytest.mark.parametrize("rule", get_args(OnScorerError))
@pytest.mark.parametrize("fault", AT_FAULT)
def test_a_scorer_at_fault_leaves_the_decision_to_the_rules_and_shows(
    fault: str, rule: OnScorerError, how: How, backend: Backend, request: pytest.FixtureRequest
) -> None:
    given, error = AT_FAULT[fault]
    scorer = request.getfixturevalue(given) if isinstance(given, str) else given()
    limit = 0.01 if fault == "times out" else None
    rules = enforced(threshold=0.0, on_scorer_error=rule, scoring_timeout=limit)
    world, model = World(), Scripted(replies=[act(1), say(1)])
    builder = build(told(scorer, rules, backend), agent_node(model, how=how), world)
    graph = builder.compile(checkpointer=InMemorySaver())

    final = run(graph, config=CONFIG, how=how)
    assert world.ran == ([1.0] if rule == "flag" else [])
    assert ("__interrupt__" in final) == (rule == "escalate")
    assert (final["messages"][-1].text == rules.abstain_message) == (rule == "abstain")
    assert_degraded(final["pa"][0], backend, rule, "scorer_error", error)
    if rule == "escalate":
        run(graph, Command(resume={"decisions": [{"type": "approve"}]}), CONFIG, how=how)
        assert world.ran == [1.0], "a human answers for it"


def test_models_whose_sizes_do_not_fit_the_tokenizer_never_become_a_scorer(
    models: tuple[PreTrainedModel, PreTrainedModel], tiny: Build
) -> None:
    with pytest.raises(PairError, match="do not belong together"):
        ModelPair(models[0], tiny("llama", 61), tokenizer("qwen3"))


def test_checkpoints_whose_tokenizers_differ_never_become_a_scorer(
    models: tuple[PreTrainedModel, PreTrainedModel], tmp_path: Path
) -> None:
    folders = [tmp_path / name for name in ("policy", "reference")]
    for folder, model, family in zip(folders, models, ("qwen3", "chatml"), strict=True):
        model.save_pretrained(folder)
        tokenizer(family).save_pretrained(folder)
    with pytest.raises(PairError, match="differ"):
        ModelPair.from_pretrained(*folders)


@sync_and_async
@pytest.mark.parametrize("scorer", ["one that refuses it", "pair"])
@pytest.mark.parametrize("rule", get_args(OnScorerError))
@pytest.mark.parametrize("low", get_args(OnLow))
def test_an_action_without_text_or_calls_never_runs_whatever_the_rules(
    low: OnLow, rule: OnScorerError, scorer: str, how: How, backend: Backend, pair: ModelPair
) -> None:
    rules = enforced(threshold=0.0, on_low=low, on_scorer_error=rule)
    final, world = proposed_nothing(told(pair if scorer == "pair" else ByArgument(), rules, backend), how)
    assert world.ran == []
    assert texts(final["messages"]) == ["human:go", f"ai:{rules.abstain_message}"]
    assert_degraded(final["pa"][0], backend, "abstain", "not_scored", UnscorableActionError)


@sync_and_async
@pytest.mark.parametrize("rule", get_args(OnScorerError))
@pytest.mark.parametrize("answer", [down, answering(1.0)], ids=["down", "careless"])
def test_an_action_without_text_or_calls_never_runs_whatever_the_scorer_does(
    answer: Any, rule: OnScorerError, how: How
) -> None:
    rules = enforced(threshold=0.0, on_scorer_error=rule)
    final, world = proposed_nothing(Guard(Failing(answer), rules), how)
    assert world.ran == []
    assert texts(final["messages"]) == ["human:go", f"ai:{rules.abstain_message}"]
    assert final["pa"][0]["decision"] == "abstain"


@sync_and_async
@pytest.mark.parametrize("place", get_args(Place))
def test_a_record_that_a_caller_brings_along_admits_nothing(
    place: Place, how: How, caplog: pytest.LogCaptureFixture
) -> None:
    def entry(state: Any) -> str:
        return "tools" if isinstance(state["messages"][-1], AIMessage) else "agent"

    def graph(world: World, **schemas: Any) -> Any:
        guard, node = Guard(ByArgument(), enforced(threshold=0.0)), agent_node(Scripted(replies=[say(1)]), how=how)
        by_hand = place == "hand"
        builder: Any = StateGraph(GuardState, **schemas)
        builder.add_node("agent", guard.node(node) if by_hand else node)
        builder.add_node("tools", guard.gate(ToolNode(world.tools)) if by_hand else ToolNode(world.tools))
        builder.add_conditional_edges(START, entry, ["agent", "tools"])
        builder.add_conditional_edges("agent", guard.route("tools") if by_hand else tools_condition)
        builder.add_edge("tools", "agent")
        return (builder if by_hand else guard.install(builder)).compile()

    trusting = Guard(ByArgument(), enforced(threshold=-99.0))
    model = Scripted(replies=[act(-9)])
    stopped = build(trusting, agent_node(model), World()).compile(InMemorySaver(), interrupt_before=["tools"])
    forged = run(stopped, config=CONFIG)
    assert forged["pa"][0]["decision"] == "pass", "as good a record as there can be"

    world = World()
    final = run(graph(world, input_schema=MessagesState) if place == "hand" else graph(world), forged, how=how)
    assert world.ran == []
    assert_refused(final, caplog)
    if place == "hand":
        run(graph(world), forged, how=how)
        assert world.ran == [-9.0], "it is the input schema that keeps the record out"


@sync_and_async
@pytest.mark.parametrize("place", get_args(Place))
def test_a_call_edited_between_its_score_and_its_run_does_not_run(
    place: Place, how: How, caplog: pytest.LogCaptureFixture
) -> None:
    world = World()
    builder = build(
        Guard(ByArgument(), enforced(threshold=0.0)),
        agent_node(Scripted(replies=[act(1), say(1)]), how=how),
        world,
        place=place,
    )
    graph = builder.compile(checkpointer=InMemorySaver(), interrupt_before=["tools"])
    action = run(graph, config=CONFIG, how=how)["messages"][-1]
    edited = action.model_copy(update={"tool_calls": [{**action.tool_calls[0], "args": {"x": -9.0}}]})
    graph.update_state(CONFIG, {"messages": [edited]}, as_node="agent")
    final = run(graph, None, CONFIG, how=how)
    assert world.ran == []
    assert_refused(final, caplog)


@pytest.mark.parametrize("kind", ["coroutines", "threads"])
@pytest.mark.parametrize("limit", [None, 60.0])
def test_each_of_64_conversations_at_once_gets_its_own_decision(kind: str, limit: float | None) -> None:
    count = 64
    together, atogether = threading.Barrier(count, timeout=60), asyncio.Barrier(count)
    drawn: set[int] = set()

    def reply(state: GuardState) -> tuple[AIMessage, bool]:
        """Number n: a bad draw, then a good one if n is odd, else one half good; and whether it is the first."""
        number = int(state["messages"][0].text)
        if len(state["messages"]) > 1:
            return say(number), False
        if number not in drawn:
            drawn.add(number)
            return act(-number), True
        return (act(number) if number % 2 else act(number, -2 * number)), False

    def agent(state: GuardState) -> Any:
        action, first = reply(state)
        if first:
            together.wait()
        return {"messages": [action]}

    async def aagent(state: GuardState) -> Any:
        action, first = reply(state)
        if first:
            async with asyncio.timeout(60):
                await atogether.wait()
        return {"messages": [action]}

    world = World()
    guard = Guard(ByArgument(), enforced(threshold=0.0, draws=2, on_low="block", scoring_timeout=limit))
    graph = build(guard, agent if kind == "threads" else aagent, world).compile(checkpointer=InMemorySaver())

    def given(number: int) -> tuple[Any, Any]:
        return {"messages": [HumanMessage(str(number))]}, {"configurable": {"thread_id": str(number)}}

    numbers = range(1, count + 1)

    async def all_of_them() -> list[Any]:
        return list(await asyncio.gather(*(graph.ainvoke(*given(number)) for number in numbers)))

    if kind == "threads":
        with ThreadPoolExecutor(count) as pool:
            finals = list(pool.map(lambda number: graph.invoke(*given(number)), numbers))
    else:
        finals = asyncio.run(all_of_them())
    for number, final in enumerate(finals, 1):
        first, last = final["pa"]
        odd = number % 2 == 1
        assert first["decision"] == ("pass" if odd else "block")
        assert [candidate["score"] for candidate in first["candidates"]] == [-number, number if odd else -number / 2]
        assert (last["decision"], last["score"]) == ("pass", number)
        answers = [each for each in final["messages"] if isinstance(each, ToolMessage)]
        assert {each.text for each in answers if each.status == "success"} == {f"did {float(number)}"}
        assert final["messages"][-1].text == f"done #{number}"
    assert sorted(world.ran) == [*numbers], "each good call once, and no bad one"


def proposed_nothing(guard: Guard, how: How) -> tuple[dict[str, Any], World]:
    """A run whose model proposes an empty action."""
    world, model = World(), Scripted(replies=[AIMessage("")])
    graph = build(guard, agent_node(model, how=how), world).compile(checkpointer=InMemorySaver())
    return run(graph, config=CONFIG, how=how), world


def told(scorer: Any, rules: Rules, backend: Backend) -> Guard:
    return Guard(
        scorer,
        rules,
        tracer_provider=backend.tracer_provider,
        meter_provider=backend.meter_provider,
        logger_provider=backend.logger_provider,
    )


def assert_degraded(
    record: dict[str, Any], backend: Backend, decision: str, reason: str, error: type[Exception]
) -> None:
    """Record, span and metric all say what was decided, and that it was decided without a score."""
    assert (record["decision"], record["reason"], record["score"]) == (decision, reason, None)
    assert record["error"].startswith(f"{error.__name__}: ")
    shown = {names.DECISION: decision, names.ERROR_TYPE: error_type(error(), None)}
    span = backend.spans(names.GUARD_SPAN)[0]
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes is not None
    assert shown.items() <= dict(span.attributes).items()
    assert names.SCORE not in span.attributes
    points = [dict(point.attributes) for point in backend.points(names.DECISIONS_METRIC)]
    assert any(shown.items() <= point.items() for point in points)


def assert_refused(final: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    """The model is told, and so is whoever reads the log."""
    [answer] = [message for message in final["messages"] if isinstance(message, ToolMessage)]
    assert answer.status == "error"
    assert NOT_APPROVED in answer.text
    assert any("it is not one that was scored" in each.getMessage() for each in caplog.records)
