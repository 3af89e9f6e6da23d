"""All draws of a guarded step in one request: through the real OpenAI client, in guarded graphs."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import openai
import pytest
from guard.agents import ByArgument, How, Kind, World, act, agent_node, build, enforced, one_node, run, say
from integrations.openai_server import ANSWER_TOKENS, PROMPT_TOKENS, Server
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from pa_openai import ManyDraws

from pa_middleware import Guard, Rules
from pa_middleware.guard.drawing import Together, together

BEST = enforced(draws=3, select="best")
TWO_STEPS = [act(1), act(3), act(2), say(1), say(2), say(3)]


def _graph(model: BaseChatModel, rules: Rules = BEST, kind: Kind = "function", how: How = "sync") -> Any:
    guard = Guard(ByArgument(), rules)
    return build(guard, agent_node(model, kind, how), World()).compile()


def _ask(model: BaseChatModel, prompt: str, how: How = "sync", **settings: Any) -> AIMessage:
    return model.invoke(prompt, **settings) if how == "sync" else asyncio.run(model.ainvoke(prompt, **settings))


def _draws(model: BaseChatModel, count: int = 3, how: How = "sync", **settings: Any) -> list[AIMessage]:
    """The draws of one step."""
    drawn = []
    with together(Together(count)) as step:
        for wanted in range(count, 0, -1):
            step.wanted = wanted
            drawn.append(_ask(model, "go", how, **settings))
    return drawn


@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize("kind", ["function", "runnable"])
def test_the_draws_of_a_step_come_from_one_request_and_the_next_step_asks_anew(how: How, kind: Kind) -> None:
    server = Server(TWO_STEPS)
    final = run(_graph(ManyDraws(server.client()), kind=kind, how=how), how=how)
    assert server.asked == [3, 3]
    assert [len(record["candidates"]) for record in final["pa"]] == [3, 3]
    assert [record["selected"] for record in final["pa"]] == [1, 2]
    assert [message.text for message in final["messages"]] == ["go", "", "did 3.0", "done #3"]
    assert [call["args"]["x"] for message in final["messages"] for call in getattr(message, "tool_calls", [])] == [3]


def test_a_guard_that_stops_at_the_first_pass_asks_for_one_each_time() -> None:
    server = Server([act(-1), act(1), say(1)])
    final = run(_graph(ManyDraws(server.client()), enforced(threshold=0.0, draws=3)))
    assert server.asked == [None, None, None]
    assert [len(record["candidates"]) for record in final["pa"]] == [2, 1]


def test_outside_of_a_guard_it_is_the_model_inside() -> None:
    server = Server([say(1), say(2), say(3)])
    model = ManyDraws(server.client(temperature=0.5))
    assert [model.invoke("go").text, model.invoke("go").text] == ["done #1", "done #2"]
    plain = server.client(temperature=0.5)
    plain.invoke("go")
    assert server.requests[0] == server.requests[2]
    assert (model.model_name, model._llm_type) == ("served", plain._llm_type)
    assert model._get_ls_params() == plain._get_ls_params()
    assert model._get_llm_string() == plain._get_llm_string()
    assert model.asdict() == plain.asdict()


@pytest.mark.parametrize("how", ["sync", "async"])
def test_each_draw_is_a_message_of_its_own_and_the_cost_is_counted_once(how: How) -> None:
    server = Server([say(1), act(2), say(3)])
    first, *others = _draws(ManyDraws(server.client(logprobs=True)), how=how)
    drawn = [first, *others]
    assert server.asked == [3]
    assert len({message.id for message in drawn}) == 3
    assert all(message.id and message.id.startswith("lc_run-") for message in drawn)
    assert [message.response_metadata["finish_reason"] for message in drawn] == ["stop", "tool_calls", "stop"]
    assert [m.response_metadata["logprobs"]["content"][0]["token"] for m in drawn] == ["done #1", "", "done #3"]
    assert {(m.response_metadata["id"], m.response_metadata["model_name"]) for m in drawn} == {
        ("chatcmpl-1", "served-1")
    }
    assert first.usage_metadata is not None
    assert (first.usage_metadata["input_tokens"], first.usage_metadata["output_tokens"]) == (
        PROMPT_TOKENS,
        3 * ANSWER_TOKENS,
    )
    assert "token_usage" in first.response_metadata
    for message in others:
        assert message.usage_metadata == {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
        assert "token_usage" not in message.response_metadata


@pytest.mark.parametrize(("most", "asked"), [(2, [3, 1]), (1, [3, 2, 1])])
def test_a_server_that_answers_fewer_is_asked_again_for_the_rest(most: int, asked: list[int]) -> None:
    server = Server([say(1), say(2), say(3)], most=most)
    drawn = _draws(ManyDraws(server.client()))
    assert [message.text for message in drawn] == ["done #1", "done #2", "done #3"]
    assert [n or 1 for n in server.asked] == asked
    costs = [message.usage_metadata["input_tokens"] for message in drawn if message.usage_metadata]
    assert sum(costs) == PROMPT_TOKENS * len(asked)


def test_a_server_that_ignores_n_serves_a_guarded_graph_all_the_same() -> None:
    server = Server(TWO_STEPS, most=1)
    final = run(_graph(ManyDraws(server.client())))
    assert [record["selected"] for record in final["pa"]] == [1, 2]
    assert len(server.requests) == 6


def test_a_server_that_refuses_n_is_asked_for_each_draw_alone_after_one_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = Server(TWO_STEPS, refuses_n=True)
    model = ManyDraws(server.client(temperature=0))
    with caplog.at_level(logging.WARNING, "pa_openai"):
        final = run(_graph(model))
    assert server.asked == [3, None, None, None, None, None, None]
    assert [record["selected"] for record in final["pa"]] == [1, 2]
    (warning,) = caplog.messages
    assert warning.startswith("ChatOpenAI makes no 3 answers to one request (")
    assert "greedy" not in warning, "what a provider says may quote the prompt"


def test_a_request_that_is_refused_as_such_raises_what_the_client_raises() -> None:
    server = Server([], status=422)
    model = ManyDraws(server.client())
    for _ in range(2):
        with pytest.raises(openai.UnprocessableEntityError):
            _draws(model)
    assert server.asked == [3, None] * 2


def test_an_error_that_is_no_refusal_is_not_asked_about_twice() -> None:
    server = Server([], status=429)
    with pytest.raises(openai.RateLimitError):
        _draws(ManyDraws(server.client()))
    assert server.asked == [3]


def test_an_api_without_n_is_asked_for_each_draw_alone(caplog: pytest.LogCaptureFixture) -> None:
    server = Server([say(1), say(2), say(3)])
    drawn = _draws(ManyDraws(server.client(use_responses_api=True)))
    assert [message.text for message in drawn] == ["done #1", "done #2", "done #3"]
    assert server.asked == [None, None, None]
    assert len(caplog.messages) == 1


def test_messages_that_share_the_id_of_their_response_get_ids_of_their_own() -> None:
    class Same(BaseChatModel):
        def _generate(self, *args: Any, n: int = 1, **kwargs: Any) -> ChatResult:
            return ChatResult(generations=[ChatGeneration(message=AIMessage("hi", id="response")) for _ in range(n)])

        @property
        def _llm_type(self) -> str:
            return "same"

    drawn = _draws(ManyDraws(Same()))
    assert drawn[0].id == "response"
    assert len({message.id for message in drawn}) == 3
    assert [message.usage_metadata for message in drawn] == [None, None, None]


def test_a_node_may_ask_one_model_with_several_prompts() -> None:
    def answer(request: dict[str, Any]) -> AIMessage:
        return AIMessage("plan") if request["messages"][-1]["content"] == "plan!" else say(1)

    server = Server(answer)
    model = ManyDraws(server.client())

    def agent(state: Any) -> Any:
        plan = model.invoke("plan!").text
        return {"messages": [model.invoke([*state["messages"], AIMessage(plan)])]}

    final = run(one_node(Guard(ByArgument(), BEST).node(agent)))
    assert server.asked == [3, 3]
    assert len(final["pa"][0]["candidates"]) == 3
    assert final["messages"][-1].text == "done #1"


def test_a_prompt_that_tells_an_earlier_answer_is_asked_for_its_own_draw_alone() -> None:
    plans = iter(["a", "b", "c"])
    seen: list[str] = []

    def answer(request: dict[str, Any]) -> AIMessage:
        asked = request["messages"][-1]["content"]
        if asked == "plan!":
            return AIMessage(next(plans))
        seen.append(asked)
        return say(1)

    server = Server(answer)
    model = ManyDraws(server.client())
    run(one_node(Guard(ByArgument(), BEST).node(lambda _: {"messages": [model.invoke(model.invoke("plan!").text)]})))
    assert server.asked == [3, 3, None, None]
    assert Counter(seen) == {"a": 3, "b": 1, "c": 1}


def test_two_models_with_one_prompt_keep_their_draws_apart() -> None:
    servers = [Server([say(1), say(2)]), Server([say(3), say(4)])]
    models = [ManyDraws(server.client()) for server in servers]
    with together(Together(2)) as step:
        drawn = [model.invoke("go").text for model in models]
        step.wanted = 1
        drawn += [model.invoke("go").text for model in models]
    assert drawn == ["done #1", "done #3", "done #2", "done #4"]
    assert [server.asked for server in servers] == [[2], [2]]


def test_other_settings_are_another_question() -> None:
    server = Server([say(score) for score in range(8)])
    model = ManyDraws(server.client())
    with together(Together(2)) as step:
        texts = [model.invoke("go").text, model.bind(temperature=0).invoke("go").text]
        texts.append(model.invoke("go", stop=["x"]).text)
        step.wanted = 1
        texts += [model.bind(temperature=0).invoke("go").text, model.invoke("go").text]
    assert texts == ["done #0", "done #2", "done #4", "done #3", "done #1"]
    assert [request.get("temperature") for request in server.requests] == [None, 0, None]


def test_steps_on_two_threads_at_once_do_not_mix() -> None:
    both = Barrier(2, timeout=30)

    def answer(request: dict[str, Any]) -> AIMessage:
        both.wait()  # an answer of the one run for an answer of the other
        return say(1, text=request["messages"][0]["content"])

    server = Server(answer)
    graph = _graph(ManyDraws(server.client()))
    with ThreadPoolExecutor(2) as threads:
        finals = list(threads.map(lambda who: run(graph, who), ["left", "right"]))
    assert [final["messages"][-1].text for final in finals] == ["left #1", "right #1"]
    assert server.asked == [3, 3]


def test_steps_in_two_tasks_at_once_do_not_mix() -> None:
    server = Server(lambda request: say(1, text=request["messages"][0]["content"]))
    graph = _graph(ManyDraws(server.client()), how="async")

    async def both() -> list[Any]:
        asked = [{"messages": [("user", who)]} for who in ("left", "right")]
        return await asyncio.gather(*(graph.ainvoke(one) for one in asked))

    assert [final["messages"][-1].text for final in asyncio.run(both())] == ["left #1", "right #1"]
    assert server.asked == [3, 3]


def test_a_call_that_sets_n_itself_stands_alone() -> None:
    server = Server([say(score) for score in range(4)])
    model = ManyDraws(server.client())
    with together(Together(3)):
        result = model.generate([[HumanMessage("go")]], n=2)
        assert model.invoke("go", n=2).text == "done #2"
    assert [generation.text for generation in result.generations[0]] == ["done #0", "done #1"]
    assert server.asked == [2, 2]


def test_a_model_that_is_set_to_make_several_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the model's n is 4; leave it out"):
        ManyDraws(Server([]).client(n=4))
    ManyDraws(Server([]).client(n=1))


def test_what_is_no_chat_model_is_refused() -> None:
    bound: Any = Server([]).client().bind_tools([])
    with pytest.raises(TypeError, match="needed: a chat model as it is; bind tools and settings to ManyDraws"):
        ManyDraws(bound)
