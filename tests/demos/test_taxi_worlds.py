from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langgraph.checkpoint.memory import InMemorySaver
from opentelemetry.trace import NoOpTracerProvider
from pa_demos.taxi.agent import build_agent, first_messages, shown
from pa_demos.taxi.environment import ACTION_COUNT, ACTIONS, HORIZON, STATE_COUNT, Taxi
from pa_demos.taxi.exact import soft_optimum
from pa_demos.taxi.prompt import ACTION_MESSAGES, TOOLS
from pa_demos.taxi.worlds import TaxiWorlds, WorldError

from pa_middleware import Guard, Rules, Step, StepScore
from pa_middleware.scoring.messages import template_tools
from pa_middleware.scoring.scorer import CallScore, CandidateScore
from pa_middleware.selection import Fork, replay

ROUTE = [*np.random.default_rng(1).integers(0, 6, size=12).tolist()]
"""Numbers of legal actions."""
MALFORMED_REPLIES = [
    AIMessage("I drive north."),
    AIMessage("", tool_calls=[{"name": "fly", "args": {}, "id": "c1"}]),
    AIMessage("", tool_calls=[{"name": name, "args": {}, "id": name} for name in ("pickup", "dropoff")]),
]
SEEDS = {"a": 3, "b": 4}


class _Route(BaseChatModel):
    """Gives the replies in turn, over and over."""

    replies: Sequence[AIMessage]
    given: int = 0

    @property
    def _llm_type(self) -> str:
        return "route"

    def bind_tools(self, *args: Any, **kwargs: Any) -> Any:
        return self

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        reply = self.replies[self.given % len(self.replies)]
        self.given += 1
        return ChatResult(generations=[ChatGeneration(message=reply.model_copy(update={"id": None}))])


def _driven(seed: int, actions: Sequence[int]) -> Taxi:
    taxi = Taxi(seed)
    for action in actions:
        taxi.act(action)
    return taxi


def _same(one: Taxi, other: Taxi) -> bool:
    """Whether they stand alike, and go on alike."""
    if (one.state, one.steps, one.success) != (other.state, other.steps, other.success):
        return False
    ways = [[taxi.after(taxi.steps).act(action) for action in range(4)] for taxi in (one, other)]
    return ways[0] == ways[1]


def _run(worlds: TaxiWorlds, thread: str, replies: Sequence[AIMessage]) -> list[BaseMessage]:
    """The conversation of an episode in the thread."""
    graph = build_agent(_Route(replies=replies), worlds).compile(checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": thread}}
    messages: list[BaseMessage] = graph.invoke({"messages": first_messages(worlds.of(thread))}, config)["messages"]
    return messages


def _replies(actions: Sequence[int]) -> list[AIMessage]:
    return [ACTION_MESSAGES[action] for action in actions]


@pytest.mark.parametrize("steps", range(len(ROUTE) + 1))
def test_a_taxi_after_some_steps_is_as_if_it_had_taken_no_others(steps: int) -> None:
    taxi = _driven(3, ROUTE)
    twin = taxi.after(steps)
    assert _same(twin, _driven(3, ROUTE[:steps]))
    twin.act(0)
    assert _same(taxi, _driven(3, ROUTE))


def test_a_delivered_taxi_goes_back_to_where_it_had_not_delivered() -> None:
    policy, taxi = soft_optimum(np.full((STATE_COUNT, ACTION_COUNT), 1 / ACTION_COUNT)).policy.argmax(axis=-1), Taxi(3)
    while not taxi.done:
        taxi.act(int(policy[taxi.state]))
    assert taxi.success
    assert taxi.after(taxi.steps).done
    before = taxi.after(taxi.steps - 1)
    assert not before.done
    before.act(int(policy[before.state]))
    assert before.success


@pytest.mark.parametrize("steps", [-1, 13])
def test_a_taxi_cannot_go_back_to_a_step_it_has_not_taken(steps: int) -> None:
    with pytest.raises(ValueError, match="steps must be 0 to 12"):
        _driven(3, ROUTE).after(steps)


def test_other_rain_falls_from_the_fork_on_only() -> None:
    taxi = _driven(3, ROUTE)
    states = set()
    for rain in range(10):
        twin = taxi.after(6, rain=rain)
        assert twin.state == taxi.after(6).state
        for action in ROUTE[6:]:
            twin.act(action)
        states.add(twin.state)
    assert len(states) > 1


def test_each_thread_drives_a_taxi_of_its_own() -> None:
    worlds = TaxiWorlds(SEEDS.__getitem__)
    conversations = {thread: _run(worlds, thread, _replies(ROUTE[:5])) for thread in SEEDS}
    for thread, seed in SEEDS.items():
        taxi = Taxi(seed)
        plain = build_agent(_Route(replies=_replies(ROUTE[:5])), taxi).compile()
        messages = plain.invoke({"messages": first_messages(taxi)})["messages"]
        assert [message.text for message in conversations[thread]] == [message.text for message in messages]
        assert _course(worlds.of(thread)) == _course(taxi)


def _course(taxi: Taxi) -> tuple[int, int, bool]:
    return taxi.state, taxi.steps, taxi.success


async def _arun(worlds: TaxiWorlds, thread: str) -> None:
    graph = build_agent(_Route(replies=_replies(ROUTE[:5])), worlds).compile()
    await graph.ainvoke(
        {"messages": first_messages(worlds.of(thread))}, {"configurable": {"thread_id": thread}, "recursion_limit": 100}
    )


def test_an_event_loop_finds_the_same_taxi() -> None:
    import asyncio

    worlds, aworlds = TaxiWorlds(3), TaxiWorlds(3)
    _run(worlds, "a", _replies(ROUTE[:5]))
    asyncio.run(_arun(aworlds, "a"))
    assert _course(worlds.of("a")) == _course(aworlds.of("a"))
    assert aworlds.of("a").steps > 5


def test_one_seed_is_every_threads() -> None:
    worlds = TaxiWorlds(3)
    assert worlds.of("a") is not worlds.of("b")
    assert worlds.of("a") is worlds.of("a")
    assert _same(worlds.of("a"), worlds.of("b"))


@pytest.mark.parametrize("steps", [0, 1, 7, 12])
def test_a_forked_taxi_is_the_sources_after_so_many_actions_in_the_same_rain(steps: int) -> None:
    worlds = TaxiWorlds(SEEDS.__getitem__)
    for action in ROUTE:
        worlds.of("b").act(action)
    worlds.fork(Fork("b again", "b", steps))
    assert _same(worlds.of("b again"), _driven(SEEDS["b"], ROUTE[:steps]))
    assert worlds.of("b").steps == 12


def test_a_fork_of_a_fork_keeps_its_seed() -> None:
    worlds = TaxiWorlds(SEEDS.__getitem__)
    worlds.of("b")
    worlds.fork(Fork("c", "b", 0))
    worlds.of("c").act(ROUTE[0])
    worlds.fork(Fork("d", "c", 1))
    assert _same(worlds.of("d"), _driven(SEEDS["b"], ROUTE[:1]))


def test_a_fork_from_nothing_is_a_new_taxi_in_place_of_any() -> None:
    worlds = TaxiWorlds(3)
    worlds.of("a").act(0)
    worlds.fork(Fork("a", None, 0))
    assert _same(worlds.of("a"), Taxi(3))


def test_fresh_rain_can_be_asked_for() -> None:
    worlds = TaxiWorlds(3, rain=lambda fork: int(fork.target))
    for action in ROUTE:
        worlds.of("a").act(action)
    for target in range(10):
        worlds.fork(Fork(str(target), "a", 6))
        assert worlds.of(str(target)).state == _driven(3, ROUTE[:6]).state
        for action in ROUTE[6:]:
            worlds.of(str(target)).act(action)
    assert len({worlds.of(str(target)).state for target in range(10)}) > 1


def test_a_fork_that_asks_for_luck_of_its_own_sees_rain_of_that_number() -> None:
    worlds = TaxiWorlds(3)
    for action in ROUTE:
        worlds.of("a").act(action)
    ends: dict[str, tuple[int, int, bool]] = {}
    for name, luck in (*((str(luck), luck) for luck in range(10)), ("0 again", 0)):
        worlds.fork(Fork(name, "a", 6, luck=luck))
        assert _course(worlds.of(name)) == _course(_driven(3, ROUTE[:6]))
        for action in ROUTE[6:]:
            worlds.of(name).act(action)
        ends[name] = _course(worlds.of(name))
    assert len(set(ends.values())) > 1
    assert ends["0 again"] == ends["0"]


@pytest.mark.parametrize("steps", [0, 1, 2, 9, HORIZON - 1])
def test_a_world_of_another_process_is_driven_again_by_the_conversation(steps: int) -> None:
    here, there = TaxiWorlds(SEEDS.__getitem__), TaxiWorlds(SEEDS.__getitem__)
    messages = _run(here, "b", [*MALFORMED_REPLIES[:1], *_replies(ROUTE[:4]), *MALFORMED_REPLIES[1:]])
    actions = [place for place, message in enumerate(messages) if isinstance(message, AIMessage)]
    before = messages[: actions[steps]]
    for worlds in (here, there):
        worlds.fork(Fork("again", "b", steps, before))
    assert _same(here.of("again"), there.of("again"))
    assert there.of("again").steps == steps


@pytest.mark.parametrize("known", [True, False])
def test_a_conversation_of_another_seed_is_refused(known: bool) -> None:
    messages = _run(TaxiWorlds(3), "a", _replies([0, 1, 2, 3]))
    worlds = TaxiWorlds(4)
    if known:
        _run(worlds, "a", _replies([0, 1, 2, 3]))
    with pytest.raises(WorldError, match="is it of another seed"):
        worlds.fork(Fork("again", "a", 2, messages[:7]))


@pytest.mark.parametrize("known", [True, False])
def test_a_conversation_of_another_number_of_actions_is_refused(known: bool) -> None:
    worlds = TaxiWorlds(3)
    messages = _run(worlds, "a", _replies([0, 1, 2, 3]))
    with pytest.raises(WorldError, match="begins after 2 steps, and its conversation has 3"):
        (worlds if known else TaxiWorlds(3)).fork(Fork("again", "a", 2, messages[:9]))


class _NoPickups:
    """Scores every action 0 but for pick-ups."""

    def score(self, steps: Sequence[Step]) -> list[StepScore]:
        return [StepScore(tuple(self._one(action) for action in step.candidates)) for step in steps]

    def _one(self, action: AIMessage) -> CandidateScore:
        calls = tuple(CallScore(c["id"], c["name"], -9.0 * (c["name"] == "pickup"), 1) for c in action.tool_calls)
        return CandidateScore(sum(call.score for call in calls), -2.0, -2.0, (0.0,), calls)


def _blocked_run(worlds: TaxiWorlds) -> Any:
    """A guarded graph after a run in the thread `a` in which every third call, a pick-up, was blocked."""
    actions = [ACTIONS.index(name) for name in ("north", "pickup", "east")]
    guard = Guard(
        _NoPickups(),
        Rules(threshold=-1.0, mode="enforce", on_low="block"),
        tools=worlds.tools(),
        history=shown,
        tracer_provider=NoOpTracerProvider(),
    )
    graph = guard.install(build_agent(_Route(replies=_replies(actions)), worlds)).compile(checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "a"}, "recursion_limit": 400}
    graph.invoke({"messages": first_messages(worlds.of("a"))}, config, durability="sync")
    return graph


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("step", [1, 2, 3, 10])
def test_a_run_in_which_a_guard_blocked_calls_is_replayed_in_a_taxi_that_those_never_reached(
    step: int, known: bool
) -> None:
    worlds = TaxiWorlds(3)
    graph = _blocked_run(worlds)
    original = worlds.of("a")
    assert original.steps == HORIZON < len(graph.get_state({"configurable": {"thread_id": "a"}}).values["pa"])
    if not known:
        worlds._taxis.clear()  # as in another process
    begun: list[Taxi] = []

    def fork(fork: Fork) -> None:
        worlds.fork(fork)
        begun.append(worlds.of(fork.target).after(worlds.of(fork.target).steps))

    replay(graph, "a", step=step, draws=1, config={"recursion_limit": 400}, fork_environment=fork)
    assert begun[0].steps == step - (step + 1) // 3  # every third was held back, the second first
    assert _same(begun[0], original.after(begun[0].steps))


def test_a_call_that_is_wrongly_told_as_held_back_is_found_out_by_how_the_taxi_stands() -> None:
    worlds = TaxiWorlds(3)
    messages = _run(worlds, "a", _replies([1, 3, 2, 0]))[:9]
    messages[4] = messages[4].model_copy(update={"status": "error"})
    for known in (worlds, TaxiWorlds(3)):
        with pytest.raises(WorldError, match="its taxi stands otherwise"):
            known.fork(Fork("again", "a", 3, messages))


def test_a_fork_that_no_taxi_can_be_made_for_is_refused() -> None:
    with pytest.raises(WorldError, match="has no taxi here, and without its conversation"):
        TaxiWorlds(3).fork(Fork("again", "a", 2))
    worlds = TaxiWorlds(3)
    worlds.of("a")
    with pytest.raises(WorldError, match="after 2 actions, and its taxi took 0"):
        worlds.fork(Fork("again", "a", 2))


def test_without_a_thread_there_is_no_taxi() -> None:
    worlds = TaxiWorlds(3)
    with pytest.raises(WorldError, match="run the graph with a thread_id"):
        worlds.act(0)
    graph = build_agent(_Route(replies=_replies(ROUTE)), worlds).compile()
    with pytest.raises(WorldError, match="run the graph with a thread_id"):
        graph.invoke({"messages": first_messages(Taxi(3))})


def test_the_tools_of_many_taxis_read_as_those_of_one() -> None:
    assert template_tools(TaxiWorlds(3).tools()) == template_tools(Taxi(3).tools()) == list(TOOLS)
    assert [tool.name for tool in TaxiWorlds(3).tools()] == ["move", *ACTIONS[4:]]
