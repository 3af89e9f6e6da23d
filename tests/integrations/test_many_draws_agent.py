"""All draws of a step in one request: tools, forms, streams and callbacks are as those of the model inside."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from guard.agents import ByArgument, How, Scripted, World, act, enforced, one_node, run, say
from integrations.openai_server import ANSWER_TOKENS, PROMPT_TOKENS, Server
from langchain.agents import create_agent
from langchain_core.callbacks import BaseCallbackHandler, UsageMetadataCallbackHandler
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.outputs import LLMResult
from langchain_core.runnables import Runnable, RunnableBinding, RunnableLambda
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from pa_langchain import ProgressAdvantageMiddleware
from pa_openai import ManyDraws
from pydantic import BaseModel

from pa_middleware import Guard
from pa_middleware.guard.drawing import Together, together

BEST = enforced(draws=3, select="best")
TWO_STEPS = [act(1), act(3), act(2), say(1), say(2), say(3)]
THREAD: Any = {"configurable": {"thread_id": "one"}}


class Weather(BaseModel):
    """What it is like."""

    degrees: int


class Ends(BaseCallbackHandler):
    """Notes how every model call ended."""

    def __init__(self) -> None:
        self.results: list[LLMResult] = []

    def on_llm_end(self, response: LLMResult, **_: Any) -> None:
        self.results.append(response)


def _agent(server: Server, world: World, how: str = "buffered", **settings: Any) -> Any:
    guard = ProgressAdvantageMiddleware(ByArgument(), BEST, stream=how)  # type: ignore[arg-type]
    model = ManyDraws(server.client(**settings))
    return create_agent(model, world.tools, middleware=[guard], checkpointer=InMemorySaver())


@pytest.mark.parametrize("how", ["sync", "async"])
def test_an_agent_makes_the_draws_of_a_step_with_its_tools_in_one_request(how: How) -> None:
    server, world = Server(TWO_STEPS), World()
    agent = _agent(server, world)
    final = run(agent, config=THREAD, how=how)
    assert server.asked == [3, 3]
    assert [[tool["function"]["name"] for tool in request["tools"]] for request in server.requests] == [["act"]] * 2
    assert world.ran == [3.0]
    assert [message.text for message in final["messages"]] == ["go", "", "did 3.0", "done #3"]
    records = agent.get_state(THREAD).values["pa"]
    assert [len(record["candidates"]) for record in records] == [3, 3]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_stream_of_messages_shows_the_draw_that_was_taken(streaming: bool) -> None:
    server, world = Server(TWO_STEPS), World()
    agent = _agent(server, world, streaming=streaming)
    shown = [m for m, _ in agent.stream({"messages": [HumanMessage("go")]}, THREAD, stream_mode="messages")]
    assert [m.tool_calls[0]["args"]["x"] for m in shown if isinstance(m, AIMessage) and m.tool_calls] == [3]
    assert "".join(m.text for m in shown if isinstance(m, AIMessage)) == "done #3"
    assert server.asked == [3, 3]
    assert not any(request.get("stream") for request in server.requests)


def test_a_live_stream_shows_every_draw_whole() -> None:
    server, world = Server(TWO_STEPS), World()
    agent = _agent(server, world, "live")
    shown = [m.text for m, _ in agent.stream({"messages": [HumanMessage("go")]}, THREAD, stream_mode="messages")]
    assert [text for text in shown if text.startswith("done")] == ["done #1", "done #2", "done #3"]
    assert server.asked == [3, 3]


@pytest.mark.parametrize("how", ["sync", "async"])
def test_outside_of_a_guard_it_streams_word_by_word(how: How) -> None:
    server = Server([say(1)])
    model = ManyDraws(server.client())

    async def stream() -> list[str]:
        return [chunk.text async for chunk in model.astream("go")]

    words = [chunk.text for chunk in model.stream("go")] if how == "sync" else asyncio.run(stream())
    assert [word for word in words if word] == ["done ", "#1 "]
    assert server.requests[0]["stream"] is True


def test_a_node_that_streams_gets_each_draw_whole() -> None:
    server = Server([say(1), say(3), say(2)])
    model = ManyDraws(server.client())

    def agent(state: Any) -> Any:
        chunks: list[AIMessageChunk] = list(model.stream(state["messages"]))
        assert len(chunks) == 1
        return {"messages": [AIMessage(chunks[0].content, id=chunks[0].id)]}

    final = run(one_node(Guard(ByArgument(), BEST).node(agent)))
    assert server.asked == [3]
    assert final["messages"][-1].text == "done #3"


def test_a_guard_that_wants_one_draw_lets_the_model_stream() -> None:
    server = Server([say(1)])
    with together(Together(1)):
        assert len(list(ManyDraws(server.client()).stream("go"))) > 1


def test_the_cost_of_a_step_is_counted_once_and_each_draw_ends_once() -> None:
    usage, ends, own = UsageMetadataCallbackHandler(), Ends(), Ends()
    server, world = Server(TWO_STEPS), World()
    agent = _agent(server, world, callbacks=[own])
    run(agent, config={**THREAD, "callbacks": [usage, ends]})
    counted = usage.usage_metadata["served-1"]
    assert (counted["input_tokens"], counted["output_tokens"]) == (2 * PROMPT_TOKENS, 6 * ANSWER_TOKENS)
    assert len(ends.results) == len(own.results) == 6
    assert all(len(result.generations[0]) == 1 for result in ends.results)


def test_tools_are_bound_as_the_model_inside_binds_them() -> None:
    server = Server([say(1), say(2)])
    client = server.client()
    settings: Any = {"tool_choice": "any", "parallel_tool_calls": False, "strict": True}
    for model in (client, ManyDraws(client)):
        model.bind_tools([Weather], **settings).bind(temperature=0).invoke("go")
    assert server.requests[0] == server.requests[1]
    assert server.requests[0]["tool_choice"] == "required"


def _call(degrees: int) -> AIMessage:
    return AIMessage("", tool_calls=[{"name": "Weather", "args": {"degrees": degrees}, "id": f"call-{degrees}"}])


def test_answers_in_the_form_of_a_tool_call_come_from_one_request() -> None:
    server = Server([_call(1), _call(2)])
    formed = ManyDraws(server.client()).with_structured_output(Weather, method="function_calling", include_raw=True)
    with together(Together(2)) as step:
        first = formed.invoke("go")
        step.wanted = 1
        second = formed.invoke("go")
    assert [first["parsed"], second["parsed"]] == [Weather(degrees=1), Weather(degrees=2)]
    assert server.asked == [2]


def test_answers_that_the_client_reads_into_a_class_are_asked_for_alone() -> None:
    server = Server([AIMessage('{"degrees": 1}'), AIMessage('{"degrees": 2}')])
    formed = ManyDraws(server.client()).with_structured_output(Weather, method="json_schema")
    with together(Together(2)) as step:
        first = formed.invoke("go")
        step.wanted = 1
        second = formed.invoke("go")
    assert [first, second] == [Weather(degrees=1), Weather(degrees=2)]
    assert server.asked == [None, None]


def test_a_model_that_binds_tools_by_making_another_is_followed() -> None:
    class Another(ChatOpenAI):
        def bind_tools(self, tools: Any, **settings: Any) -> Runnable[Any, AIMessage]:
            return self.model_copy(update={"temperature": 0.25})

    server = Server([say(1), say(2)])
    bound = ManyDraws(server.client(Another)).bind_tools([Weather])
    assert isinstance(bound, ManyDraws)
    with together(Together(2)):
        bound.invoke("go")
    assert (server.asked, server.requests[0]["temperature"]) == ([2], 0.25)


def test_a_model_that_hides_itself_in_what_it_makes_is_refused() -> None:
    class Hidden(BaseChatModel):
        def bind_tools(self, tools: Any, **settings: Any) -> Runnable[Any, AIMessage]:
            return RunnableLambda(lambda _: AIMessage("hidden"))

        def _generate(self, *args: Any, **kwargs: Any) -> Any: ...

        @property
        def _llm_type(self) -> str:
            return "hidden"

    with pytest.raises(NotImplementedError, match=r"made a RunnableLambda of itself, and no chat model is found in it"):
        ManyDraws(Hidden()).bind_tools([])


def test_what_every_chat_model_has_is_as_the_model_inside_has_it() -> None:
    client = Server([]).client(
        tags=["a"], metadata={"b": 1}, output_version="v1", custom_get_token_ids=lambda text: list(range(len(text)))
    )
    model = ManyDraws(client)
    assert (model.tags, model.metadata, model.output_version) == (["a"], client.metadata, "v1")
    assert model.get_num_tokens("four") == 4
    scripted = Scripted(replies=[], custom_get_token_ids=lambda text: [1])
    assert ManyDraws(scripted).get_num_tokens_from_messages([HumanMessage("a"), HumanMessage("b")]) == 2
    assert ManyDraws(client, tags=["c"]).tags == ["c"]


def test_blocks_are_made_of_each_draw_where_the_model_inside_answers_in_blocks() -> None:
    server = Server([say(1), say(2)])
    model = ManyDraws(server.client(output_version="v1"))
    with together(Together(2)) as step:
        drawn = [model.invoke("go")]
        step.wanted = 1
        drawn.append(model.invoke("go"))
    assert [message.content for message in drawn] == [[{"type": "text", "text": f"done #{n}"}] for n in (1, 2)]
    assert server.asked == [2]


def test_a_binding_of_it_is_a_binding_as_any() -> None:
    bound = ManyDraws(Server([]).client()).bind_tools([Weather])
    assert isinstance(bound, RunnableBinding)
    assert isinstance(bound.bound, ManyDraws)
