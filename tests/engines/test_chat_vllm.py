"""A chat model on vLLM tells the tokens that the server generated, whichever way it is asked, or nothing at all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from engines.vllm_server import VLLMServer
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, message_chunk_to_message
from langchain_core.messages.ai import add_ai_message_chunks
from langchain_core.runnables import Runnable
from pa_demos.taxi.agent import first_messages
from pa_demos.taxi.environment import Taxi
from pa_demos.taxi.prompt import TOOLS
from pa_openai import ManyDraws
from pa_vllm.chat import ChatVLLM
from pa_vllm.written import written_by

from pa_middleware import ModelPair, Step
from pa_middleware.guard.drawing import Together, together
from pa_middleware.scoring.causal_lm import CausalLM
from pa_middleware.scoring.exact import ExactIds
from pa_middleware.scoring.fitting import fit
from pa_middleware.scoring.generated import Generated, generated_of, prompt_digest
from pa_middleware.scoring.messages import reasoning_of
from pa_middleware.scoring.told import told_by

SHOWN: list[BaseMessage] = [*first_messages(Taxi(seed=3))]
WAYS = ("invoke", "ainvoke", "stream", "astream", "streaming")

Make = Callable[..., ChatVLLM]
Model = Runnable[Any, AIMessage]


@pytest.fixture(scope="module")
def running(local: ModelPair) -> Iterator[VLLMServer]:
    with VLLMServer(local.policy.model, local.tokenizer, name="policy") as running:
        yield running


@pytest.fixture
def server(running: VLLMServer) -> VLLMServer:
    running.asked.clear()
    running.rewrite = lambda path, answer: answer
    return running


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with httpx.Client(verify=False) as client:
        yield client


@pytest.fixture
def make(server: VLLMServer, client: httpx.Client) -> Make:
    """The chat model."""

    def build(**settings: Any) -> ChatVLLM:
        # No connection is kept, so that none is left open by a loop that ends.
        alone = httpx.AsyncClient(verify=False, limits=httpx.Limits(max_keepalive_connections=0))
        fixed: dict[str, Any] = {"model": "policy", "api_key": "none", "max_retries": 0, "max_tokens": 24, "seed": 1}
        clients: dict[str, Any] = {"http_client": client, "http_async_client": alone}
        return ChatVLLM(base_url=f"{server.url}/v1", **clients, **{**fixed, **settings})

    return build


def _streaming(way: str) -> dict[str, Any]:
    # A model that is told not to, never does.
    return {"streaming": True} if way == "streaming" else {}


def _ask(model: Model, way: str = "invoke", messages: list[BaseMessage] = SHOWN) -> AIMessage:
    match way:
        case "invoke" | "streaming":
            return model.invoke(messages)
        case "ainvoke":
            return asyncio.run(model.ainvoke(messages))
        case "stream":
            return _merged(list(model.stream(messages)))
        case _:
            return asyncio.run(_streamed(model, messages))


async def _streamed(model: Model, messages: list[BaseMessage]) -> AIMessage:
    return _merged([chunk async for chunk in model.astream(messages)])


def _merged(chunks: list[Any]) -> AIMessage:
    assert all(isinstance(chunk, AIMessageChunk) for chunk in chunks)
    message = message_chunk_to_message(add_ai_message_chunks(*chunks))
    assert isinstance(message, AIMessage)
    return message


def _told(message: BaseMessage) -> Generated:
    assert isinstance(message, AIMessage)
    told = generated_of(message)
    assert told is not None
    return told


def _check(message: BaseMessage, local: ModelPair, tools: Any = TOOLS) -> Generated:
    """That a message tells its tokens, and what the policy itself thinks of them."""
    told = _told(message)
    prompt = local.renderer.prompt(SHOWN, tools)
    [expected] = CausalLM(local.policy.model).log_probs(prompt, [told.ids])
    np.testing.assert_allclose(told.log_probs, expected, atol=1e-4)
    assert (told.prompt, told.model) == (prompt_digest(prompt), "policy")
    return told


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("version", ["v0", "v1"])
def test_a_message_tells_its_tokens_and_the_log_probs_of_the_model_itself(
    make: Make, local: ModelPair, way: str, version: str
) -> None:
    model = make(**_streaming(way), temperature=0.5, output_version=version).bind_tools(TOOLS)
    message = _ask(model, way)
    told = _check(message, local)
    assert told.ids[-1] == local.renderer.turn_end
    assert told.sampling == "temperature=0.5"
    [call] = message.tool_calls
    assert call["name"] in local.tokenizer.decode(list(told.ids))


@pytest.mark.parametrize("way", ["invoke", "stream"])
def test_a_message_without_calls_tells_them_too(make: Make, local: ModelPair, way: str) -> None:
    message = _ask(make(max_tokens=5), way)
    told = _check(message, local, ())
    assert len(told.ids) == 5
    assert message.response_metadata["finish_reason"] == "length"


def test_each_of_several_answers_tells_its_own(make: Make, local: ModelPair) -> None:
    model = make()
    told = [_check(answer.message, local) for answer in model._generate(SHOWN, n=4, tools=TOOLS).generations]
    assert len({each.ids for each in told}) > 1
    assert len({(each.prompt, each.sampling) for each in told}) == 1


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
@pytest.mark.parametrize("streaming", [False, True])
def test_draws_that_came_in_one_request_tell_theirs(
    make: Make, local: ModelPair, server: VLLMServer, way: str, streaming: bool
) -> None:
    model = ManyDraws(make(streaming=streaming)).bind_tools(TOOLS)
    messages = []
    with together(Together(3)) as step:
        for left in (2, 1, 0):
            messages.append(_ask(model, way))
            step.wanted = max(1, left)
    assert len(server.asked) == 1
    assert len({_check(message, local).ids for message in messages}) > 1


@pytest.mark.parametrize("way", WAYS)
def test_a_messages_metadata_lists_log_probs_only_where_they_were_asked_for(make: Make, way: str) -> None:
    plain = make(**_streaming(way)).bind_tools(TOOLS)
    asked = (make(**_streaming(way), logprobs=True).bind_tools(TOOLS), plain.bind(logprobs=True))
    message = _ask(plain, way)
    assert "logprobs" not in message.response_metadata
    for model in asked:
        again = _ask(model, way)
        listed = [each["logprob"] for each in again.response_metadata["logprobs"]["content"]]
        assert listed == list(_told(again).log_probs) == list(_told(message).log_probs)


def test_what_the_caller_says_of_the_request_holds(make: Make, server: VLLMServer) -> None:
    message = _ask(make(logprobs=False, extra_body={"top_k": 5}))
    [(_, body)] = server.asked
    assert (body["logprobs"], body["top_k"], body["return_token_ids"]) == (False, 5, True)
    assert _told(message).log_probs == ()
    assert generated_of(_ask(make(extra_body={"return_token_ids": False}))) is None


@pytest.mark.parametrize(
    ("settings", "bound", "sampling"),
    [
        ({}, {}, ""),
        ({"temperature": 1, "seed": 4, "max_tokens": 9}, {"user": "me"}, "temperature=1"),
        ({"temperature": 0.7}, {"temperature": 0.25, "top_p": 0.9}, "temperature=0.25,top_p=0.9"),
        ({"extra_body": {"top_k": 20, "min_p": 0.1, "request_id": "a"}}, {}, "min_p=0.1,top_k=20"),
        ({"presence_penalty": 0.5}, {"tool_choice": "auto"}, "presence_penalty=0.5"),
        ({"extra_body": {"repetition_penalty": 1.2}}, {"extra_body": {"min_tokens": 2}}, "min_tokens=2"),
        ({"logit_bias": {"5": 1}}, {}, "logit_bias=db897329"),
    ],
)
@pytest.mark.parametrize("way", ["invoke", "stream"])
def test_it_is_told_how_the_request_had_the_model_sample(
    make: Make, settings: dict[str, Any], bound: dict[str, Any], sampling: str, way: str
) -> None:
    told = _told(_ask(make(**{"max_tokens": 3, **settings}).bind(**bound), way))
    assert told.sampling == sampling
    assert len(told.log_probs) == len(told.ids)


@pytest.mark.parametrize(
    "bound",
    [
        {"tool_choice": "required"},
        {"tool_choice": {"type": "function", "function": {"name": "move"}}},
        {"response_format": {"type": "json_object"}},
        {"extra_body": {"structured_outputs": {"choice": ["yes", "no"]}}},
        {"tools": [{**tool, "function": {**tool["function"], "strict": True}} for tool in TOOLS]},
    ],
)
def test_no_log_probs_are_told_where_the_model_is_held_to_a_form(make: Make, bound: dict[str, Any]) -> None:
    told = _told(_ask(make(max_tokens=60).bind(**bound)))
    assert told.log_probs == ()


@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_told_where_the_server_leaves_calls_out_of_the_message_and_not_out_of_its_tokens(
    make: Make, way: str
) -> None:
    model = make(**_streaming(way))
    single = _ask(model.bind_tools(TOOLS, parallel_tool_calls=False), way)
    assert single.tool_calls
    assert generated_of(single) is None
    assert generated_of(_ask(model.bind_tools(TOOLS, parallel_tool_calls=True), way))
    assert generated_of(_ask(model.bind(parallel_tool_calls=False), way)), (
        "without tools there are no calls to leave out"
    )


@pytest.mark.parametrize("single", [False, 0, "false"])
def test_it_does_not_matter_how_the_server_is_told_to_keep_one_call(make: Make, single: Any) -> None:
    assert generated_of(_ask(make(extra_body={"parallel_tool_calls": single}).bind_tools(TOOLS))) is None


def _set(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda choice: choice.update({name: value})


def _log_prob(value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda choice: choice["logprobs"]["content"][1].update(logprob=value)


def _rewriting(change: Callable[[dict[str, Any]], None]) -> Callable[[str, Any], Any]:
    """The answer with its choice changed; in a stream the choice of each event."""

    def rewrite(path: str, answer: Any) -> Any:
        if isinstance(answer, dict):
            change(answer["choices"][0])
            return answer
        lines = []
        for sent in answer.decode().splitlines():
            event = json.loads(sent[6:]) if sent.startswith("data: {") else {}
            if event.get("choices") and event["choices"][0].get("token_ids"):
                change(event["choices"][0])
            lines.append(f"data: {json.dumps(event)}" if event else sent)
        return "".join(f"{line}\n" for line in lines).encode()

    return rewrite


@pytest.mark.parametrize("way", ["invoke", "stream"])
@pytest.mark.parametrize(
    "change",
    [
        _set("token_ids", None),
        _set("token_ids", []),
        _set("token_ids", ["1", "2"]),
        _set("token_ids", [1, -2, 3]),
        _set("token_ids", 7),
        _set("stop_reason", "so"),
    ],
)
def test_a_message_whose_tokens_are_not_known_tells_nothing(
    make: Make, server: VLLMServer, change: Any, way: str
) -> None:
    server.rewrite = _rewriting(change)
    message = _ask(make().bind_tools(TOOLS), way)
    assert message.tool_calls
    assert generated_of(message) is None


@pytest.mark.parametrize("way", WAYS)
def test_a_message_tells_which_token_ended_it_where_the_server_does(make: Make, server: VLLMServer, way: str) -> None:
    model = make(**_streaming(way)).bind_tools(TOOLS)
    assert "stop_reason" not in _ask(model, way).response_metadata
    server.rewrite = _rewriting(lambda choice: choice.update(stop_reason=choice["token_ids"][-1]))
    message = _ask(model, way)
    assert message.response_metadata["stop_reason"] == _told(message).ids[-1]


@pytest.mark.parametrize("way", ["invoke", "stream"])
@pytest.mark.parametrize(
    "change",
    [
        _set("logprobs", None),
        _set("logprobs", {"content": None}),
        lambda choice: choice["logprobs"]["content"].pop(),
        _log_prob(0.5),
        _log_prob(-9999.0),
        _log_prob(None),
        _log_prob(float("nan")),
    ],
)
def test_log_probs_that_cannot_be_relied_on_are_left_out_and_the_tokens_told(
    make: Make, server: VLLMServer, change: Any, way: str
) -> None:
    model = make().bind_tools(TOOLS)
    expected = _told(_ask(model, way))
    server.rewrite = _rewriting(change)
    told = _told(_ask(model, way))
    assert (told.ids, told.log_probs, told.prompt) == (expected.ids, (), expected.prompt)


@pytest.mark.parametrize("content", [3, [3], "x", {}])
def test_log_probs_in_another_form_are_left_out(content: Any) -> None:
    written = written_by({"choices": [{"token_ids": [5], "logprobs": {"content": content}}]})
    assert written is not None
    assert written.generated("", raw=True) == Generated((5,))


@pytest.mark.parametrize("prompt", [None, [], ["1"], [-1], [2**70], 3])
def test_an_answer_that_tells_no_prompt_or_model_is_nobodys(make: Make, server: VLLMServer, prompt: Any) -> None:
    server.rewrite = lambda path, answer: answer | {"prompt_token_ids": prompt, "model": None}
    told = _told(_ask(make().bind_tools(TOOLS)))
    assert (told.prompt, told.model) == ("", "")


@pytest.mark.parametrize(
    "change", [lambda choice: choice["token_ids"].pop(0), _set("token_ids", [1] * 50), _set("index", 1)]
)
def test_a_stream_that_leaves_tokens_out_or_mixes_answers_tells_nothing(
    make: Make, server: VLLMServer, change: Any
) -> None:
    server.rewrite = _rewriting(change)
    message = _ask(make().bind_tools(TOOLS), "stream")
    assert message.tool_calls
    assert generated_of(message) is None


def test_a_stream_without_an_answer_is_the_error_that_it_is_without_this(make: Make, server: VLLMServer) -> None:
    server.rewrite = lambda path, answer: b"data: [DONE]\n\n"
    with pytest.raises(ValueError, match="No generation chunks"):
        _ask(make(), "stream")


def test_a_stream_that_is_not_counted_tells_nothing(make: Make) -> None:
    assert generated_of(_ask(make(stream_usage=False).bind_tools(TOOLS), "stream")) is None


def test_a_stream_ends_with_one_empty_part_that_tells_all_of_it(make: Make) -> None:
    *parts, telling, last = make().bind_tools(TOOLS).stream(SHOWN)
    assert (telling.content, last.content) == ("", "")
    assert "pa_generated" in telling.response_metadata
    assert not [part for part in (*parts, last) if "pa_generated" in part.response_metadata]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_what_the_model_thought_is_kept_and_sent_back(make: Make, server: VLLMServer, way: str, name: str) -> None:
    def think(choice: dict[str, Any]) -> None:
        said = choice["message"] if "message" in choice else choice["delta"]
        said.pop("reasoning", None)
        said[name] = "hm, hm"

    server.rewrite = _rewriting(think)
    model = make(**_streaming(way)).bind_tools(TOOLS)
    message = _ask(model, way)
    assert reasoning_of(message) == "hm, hm"
    assert generated_of(message) is not None
    _ask(model, way, [*SHOWN, message, HumanMessage("and now?")])
    *_, sent, asked = server.asked[-1][1]["messages"]
    # Versions of vLLM know the one name, the other, or both.
    assert (sent["reasoning"], sent["reasoning_content"]) == ("hm, hm", "hm, hm")
    assert not {"reasoning", "reasoning_content"} & asked.keys()


@pytest.mark.parametrize("way", ["invoke", "stream"])
def test_a_client_that_no_longer_comes_by_leaves_messages_as_they_are(
    make: Make, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    for hook in ("_create_chat_result", "_convert_chunk_to_generation_chunk"):
        monkeypatch.delattr(ChatVLLM, hook)
    message = _ask(make().bind_tools(TOOLS), way)
    assert message.tool_calls
    assert generated_of(message) is None
    assert "logprobs" not in message.response_metadata


def test_openais_other_protocol_is_left_alone(make: Make, server: VLLMServer) -> None:
    with pytest.raises(openai.NotFoundError):
        make(use_responses_api=True, seed=None).invoke(SHOWN)
    [(path, body)] = server.asked
    assert path == "/v1/responses"
    assert not {"logprobs", "return_token_ids"} & body.keys()


def test_a_pair_whose_policy_is_this_model_finds_nothing_to_ask_it(make: Make, local: ModelPair) -> None:
    message = _ask(make().bind_tools(TOOLS))
    step = Step(SHOWN, [message, AIMessage("Hello")], TOOLS)
    exact = ExactIds(local.tokenizer, ends=[_told(message).ids[-1]], end_of_turn=True)
    fitted = fit(exact.put(local.renderer.render(step), step), None, "error")
    assert told_by("policy", fitted) == {fitted.queries[0]: _told(message)}
    assert told_by("reference", fitted) == {}
