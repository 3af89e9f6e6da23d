"""The guard beside LangChain's other middleware, in the order it is documented for and in others."""

from __future__ import annotations

from typing import Any

import pytest
from guard.agents import ByArgument, How, World, act, enforced, one_node, run, say, texts
from guard.cases import CONFIG
from integrations.agents import Agent, Changed, Model
from langchain.agents import create_agent
from langchain.agents.middleware import (
    AgentMiddleware,
    AgentState,
    ExtendedModelResponse,
    ModelCallLimitMiddleware,
    ModelFallbackMiddleware,
    ModelRetryMiddleware,
    SummarizationMiddleware,
    TodoListMiddleware,
    ToolCallLimitMiddleware,
    ToolRetryMiddleware,
    hook_config,
)
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from pa_langchain import ProgressAdvantageMiddleware

from pa_middleware import Guard, GuardError

LOW = enforced(threshold=0.0)
sync_and_async = pytest.mark.parametrize("how", ["sync", "async"])


class Unsteady(Model):
    """A scripted model that fails at some of its calls."""

    fails: set[int]

    def _next(self, messages: Any) -> AIMessage:
        self._asked.append(list(messages))
        if len(self._asked) in self.fails:
            raise ConnectionError("try again")
        return self.replies[len(self._asked) - 1].model_copy()


def retry(**settings: Any) -> ModelRetryMiddleware:
    return ModelRetryMiddleware(initial_delay=0.0, jitter=False, **settings)


@sync_and_async
def test_retries_listed_after_the_guard_repeat_the_one_draw_that_failed(how: How) -> None:
    model = Unsteady(replies=[act(-1), say(9), act(1), say(1)], fails={2})
    agent = Agent([], enforced(threshold=0.0, draws=2), model=model, after=[retry()], checkpointer=InMemorySaver())
    final = run(agent.graph, config=CONFIG, how=how)
    assert final["messages"][-1].text == "done #1"
    records = agent.graph.get_state(CONFIG).values["pa"]
    assert [len(record["candidates"]) for record in records] == [2, 1], "the first draw is still on record"


@sync_and_async
def test_a_message_that_outer_retries_make_up_is_not_taken_for_the_one_on_record(how: How) -> None:
    model = Unsteady(replies=[act(-1)] * 2, fails={2})
    rules = enforced(threshold=0.0, on_low="flag")
    agent = Agent([], rules, model=model, before=[retry(max_retries=0, on_failure="continue")])
    final = run(agent.graph, how=how)
    assert "try again" in final["messages"][-1].text
    assert agent.world.ran == [-1.0]


@sync_and_async
def test_an_action_that_outer_retries_make_up_is_none_that_was_scored_and_none_of_its_calls_run(how: How) -> None:
    class MadeUp(Changed):
        def wrap_model_call(self, request: Any, handler: Any) -> Any:
            handler(request)
            return act(9)

        async def awrap_model_call(self, request: Any, handler: Any) -> Any:
            await handler(request)
            return act(9)

    agent = Agent([act(1), act(1)], LOW, before=[MadeUp(lambda request: request)])
    with pytest.raises(IndexError):  # it goes on until the script ends
        run(agent.graph, how=how)
    assert agent.world.ran == []


@sync_and_async
def test_the_draw_of_a_fallback_model_is_scored_like_any_other(how: How) -> None:
    model = Unsteady(replies=[say(1)] * 3, fails={1, 2, 3})
    fallback = Model(replies=[act(-1), say(2)])
    agent = Agent([], enforced(threshold=0.0, draws=2), model=model, after=[ModelFallbackMiddleware(fallback)])
    final = run(agent.graph, how=how)
    assert texts(final["messages"]) == ["human:go", "ai:done #2"]


@sync_and_async
@pytest.mark.parametrize("place", ["before", "after"])
def test_a_refused_call_is_not_tried_again(how: How, place: str) -> None:
    beside: Any = {place: [ToolRetryMiddleware(initial_delay=0.0, jitter=False)]}
    agent = Agent([act(1, -1), say(1)], enforced(threshold=0.0, on_low="block"), **beside)
    final = run(agent.graph, how=how)
    assert agent.world.ran == [1.0]
    assert sum(message.type == "tool" for message in final["messages"]) == 2


@sync_and_async
@pytest.mark.parametrize("place", ["before", "after"])
def test_an_abstention_ends_the_run_wherever_the_guard_is_listed(how: How, place: str) -> None:
    seen: list[str] = []

    class Watching(AgentMiddleware[Any, Any, Any]):
        def after_model(self, state: Any, runtime: Any) -> None:
            seen.append("after_model")

        def after_agent(self, state: Any, runtime: Any) -> None:
            seen.append("after_agent")

    beside: Any = {place: [Watching()]}
    agent = Agent([act(-1)], LOW, **beside)
    final = run(agent.graph, how=how)
    assert final["messages"][-1].text == LOW.abstain_message
    assert agent.world.ran == []
    assert seen == (["after_agent"] if place == "before" else ["after_model", "after_agent"])


@sync_and_async
def test_an_abstention_ends_the_run_although_middleware_before_would_go_on_to_the_model(how: How) -> None:
    class Again(AgentMiddleware[Any, Any, Any]):
        @hook_config(can_jump_to=["model"])
        def after_model(self, state: Any, runtime: Any) -> dict[str, Any]:
            return {"jump_to": "model"}

    agent = Agent([act(-1)], LOW, before=[Again()])
    assert run(agent.graph, how=how)["messages"][-1].text == LOW.abstain_message


@sync_and_async
def test_a_limit_of_model_calls_counts_steps_and_the_guard_has_a_budget_of_its_own(how: How) -> None:
    limit = ModelCallLimitMiddleware(run_limit=2)
    agent = Agent([act(-1), act(1), say(-1), say(1)], enforced(threshold=0.0, draws=2), before=[limit])
    assert run(agent.graph, how=how)["messages"][-1].text == "done #1"
    assert len(agent.model.asked) == 4
    budget = enforced(threshold=0.0, draws=2, draws_per_run=3)
    agent = Agent([act(-1), act(1), say(-1)], budget)
    assert run(agent.graph, how=how)["messages"][-1].text == budget.abstain_message


class Seen(AgentState[Any]):
    """A state with something of another middleware's."""

    seen: str


class Noting(AgentMiddleware[Any, Any, Any]):
    """Writes what it saw of the model's answer into the state."""

    state_schema = Seen

    def _noted(self, response: Any) -> Any:
        return ExtendedModelResponse(response, Command(update={"seen": response.result[0].text}))

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        return self._noted(handler(request))

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        return self._noted(await handler(request))


@sync_and_async
@pytest.mark.parametrize(("place", "seen"), [("before", "done #2"), ("after", "done #1")])
def test_state_that_middleware_writes_beside_the_answer_is_that_of_the_draw_taken_if_it_is_listed_before(
    how: How, place: str, seen: str
) -> None:
    beside: Any = {place: [Noting()]}
    agent = Agent([say(2), say(1)], enforced(draws=2, select="best"), **beside)
    final = run(agent.graph, how=how)
    assert final["messages"][-1].text == "done #2"
    assert final["seen"] == seen, "LangChain keeps of the middleware inside only what the latest call wrote"


@sync_and_async
def test_middleware_with_tools_and_prompts_of_its_own_is_scored_with_them(how: How) -> None:
    model = Model(replies=[act(1), say(1)])
    beside: Any = [
        TodoListMiddleware(),
        SummarizationMiddleware(model, trigger=("messages", 100)),
        ToolCallLimitMiddleware(run_limit=5),
    ]
    agent = Agent([], LOW, model=model, before=beside)
    run(agent.graph, how=how)
    assert agent.world.ran == [1.0]
    assert [[tool.name for tool in step.tools] for step in agent.scorer.steps] == model.bound
    assert [texts(step.history) for step in agent.scorer.steps] == [texts(asked) for asked in model.asked]


def test_a_guard_is_not_placed_twice() -> None:
    guards = [ProgressAdvantageMiddleware(ByArgument(), LOW) for _ in range(2)]
    with pytest.raises(AssertionError, match="duplicate middleware"):
        create_agent(Model(replies=[]), middleware=guards)


def test_an_agent_without_tools_is_guarded_too() -> None:
    agent = Agent([say(-1)], LOW, tools=[])
    assert run(agent.graph)["messages"][-1].text == LOW.abstain_message


def test_the_agents_name_is_on_the_safe_message_too() -> None:
    assert run(Agent([act(-1)], LOW, name="cab").graph)["messages"][-1].name == "cab"
    assert run(Agent([act(-1)], LOW).graph)["messages"][-1].name is None


def test_a_whole_agent_as_a_guarded_node_acts_before_it_is_scored_and_so_is_refused() -> None:
    world = World()
    agent: Any = create_agent(Model(replies=[act(1), say(1)]), world.tools)
    with pytest.raises(GuardError, match="2 new AIMessages"):
        run(one_node(Guard(ByArgument(), LOW).node(agent)))
