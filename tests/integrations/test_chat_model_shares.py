"""A local model that drives an agent, and a pair that holds it, read and keep a conversation once between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import templates
import torch
from guard.agents import How, run
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langgraph.graph import END, START, StateGraph
from pa_demos.taxi.environment import Taxi, active_states, goal, observation
from pa_demos.taxi.episode import PAIR
from pa_demos.taxi.prompt import TOOLS, window
from pa_transformers import LocalChatModel
from transformers import PreTrainedModel

from pa_middleware import Guard, GuardState, ModelPair, Rules, Step
from pa_middleware.guard.drawing import Together, together
from pa_middleware.scoring.causal_lm import CausalLM
from pa_middleware.scoring.generated import generated_of, without_generated
from pa_middleware.scoring.lora import LoraPair
from pa_middleware.scoring.network import Network

Build = Callable[..., PreTrainedModel]
STATE = int(active_states()[211])
SHOWN = window(goal(STATE), observation(STATE))
ROLES = ["policy", "reference"]
DRAWS = 2
TURN = 24
"""The longest turn, in tokens."""


@pytest.fixture
def make() -> Callable[..., ModelPair]:
    torch.set_num_threads(1)
    return lambda **settings: ModelPair.from_pretrained(
        PAIR / "policy", PAIR / "reference", **{"dtype": torch.float32, **settings}
    )


def _chat(pair: ModelPair, role: str = "policy", **settings: Any) -> LocalChatModel:
    model = getattr(pair, role).model
    return LocalChatModel(
        model=model, tokenizer=pair.tokenizer, **{"max_new_tokens": TURN, "seed": 1, "temperature": 0.5, **settings}
    )


@contextmanager
def _scored(monkeypatch: pytest.MonkeyPatch, pair: ModelPair) -> Iterator[dict[str, int]]:
    """How many tokens the pair reads with each of its models."""
    counts = dict.fromkeys(ROLES, 0)
    roles = {id(getattr(pair, role).open()._network): role for role in ROLES}
    hidden = Network.hidden

    def counting(self: Network, ids: list[int], **keywords: Any) -> torch.Tensor:
        counts[roles[id(self)]] += len(ids)
        return hidden(self, ids, **keywords)

    with monkeypatch.context() as patched:
        patched.setattr(Network, "hidden", counting)
        yield counts


def _talk(pair: ModelPair, chat: LocalChatModel, turns: int, how: How = "sync") -> list[BaseMessage]:
    """A guarded agent whose every prompt is the whole conversation."""
    model = chat.bind_tools(TOOLS)

    def agent(state: GuardState) -> Any:
        return {"messages": [model.invoke(state["messages"])]}

    async def aagent(state: GuardState) -> Any:
        return {"messages": [await model.ainvoke(state["messages"])]}

    def answer(state: GuardState) -> Any:
        action = state["messages"][-1]
        assert isinstance(action, AIMessage)
        shown = observation(int(active_states()[len(state["messages"])]))
        answers = [ToolMessage(shown, tool_call_id=str(call["id"])) for call in action.tool_calls]
        return {"messages": answers[:1] or [HumanMessage(shown)]}

    guard = Guard(pair, Rules(mode="enforce", threshold=-1e9, draws=DRAWS, select="best"), tools=list(Taxi(0).tools()))
    builder: Any = StateGraph(GuardState)
    builder.add_node("agent", guard.node(agent if how == "sync" else aagent))
    builder.add_node("answer", answer)
    builder.add_edge(START, "agent")
    builder.add_edge("agent", "answer")
    builder.add_conditional_edges(
        "answer", lambda state: "agent" if len(state["messages"]) < len(SHOWN) + 2 * turns else END
    )
    state = run(builder.compile(), {"messages": SHOWN}, {"configurable": {"thread_id": "a"}}, how=how)
    pair._background.wait()
    messages: list[BaseMessage] = state["messages"]
    return messages


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("how", ["sync", "async"])
def test_with_the_model_that_drives_and_tells_the_pair_reads_and_keeps_nothing(
    make: Any, monkeypatch: pytest.MonkeyPatch, role: str, how: How
) -> None:
    for turns in (1, 4):
        pair = make()
        with _scored(monkeypatch, pair) as read:
            _talk(pair, _chat(pair, role), turns, how)
        assert read.pop(role) == 0
        assert all(read.values())
        [kept] = pair.conversations._kept.values()
        assert [reading.nbytes > 0 for reading in kept.readings] == [other != role for other in ROLES]


def test_a_pair_that_asks_the_driver_for_its_confidence_reads_the_actions_and_one_token_with_it(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = make(confidence=True)
    turns = 4
    with _scored(monkeypatch, pair) as read:
        messages = _talk(pair, _chat(pair), turns)
    assert 0 < read["policy"] <= turns * (DRAWS * TURN + 1)
    [kept] = pair.conversations._kept.values()
    assert kept.readings[0].nbytes == 0
    plain = make(confidence=True)
    for at, message in enumerate(messages):
        if isinstance(message, AIMessage):
            [one], [other] = (
                with_whom.score([Step(messages[:at], [message], TOOLS, conversation="a")])[0].candidates
                for with_whom in (pair, plain)
            )
            np.testing.assert_allclose(one.token_log_probs, other.token_log_probs, atol=1e-4)
            assert one.confidence is not None
            assert other.confidence is not None
            np.testing.assert_allclose(one.confidence.entropy, other.confidence.entropy, atol=1e-3)


@pytest.mark.parametrize("edit", [without_generated, lambda message: AIMessage(f"{message.text} No.")])
def test_an_action_that_was_edited_is_read_and_its_prompt_is_not(
    make: Any, monkeypatch: pytest.MonkeyPatch, edit: Callable[[AIMessage], AIMessage]
) -> None:
    pair = make()
    model = _chat(pair)
    action = edit(model.bind_tools(TOOLS).invoke(SHOWN))
    with _scored(monkeypatch, pair) as read:
        [score] = pair.score([Step(SHOWN, [action], TOOLS, conversation="a")])
    [candidate] = score.candidates
    assert read["policy"] == candidate.token_count + 1
    [expected] = CausalLM(pair.policy.model).log_probs(pair.renderer.prompt(SHOWN, TOOLS), [candidate.token_ids])
    np.testing.assert_allclose(candidate.token_log_probs, expected, atol=1e-4)


def _forwarded(model: PreTrainedModel) -> list[int]:
    seen: list[int] = []
    model.register_forward_pre_hook(
        lambda _module, _arguments, keywords: seen.append(keywords["input_ids"].shape[1]), with_kwargs=True
    )
    return seen


def test_no_token_of_a_conversation_is_read_or_kept_twice_by_the_model_that_drives(make: Any) -> None:
    pair = make()
    seen = _forwarded(pair.policy.model)
    model = _chat(pair)
    messages = _talk(pair, model, 2)
    first, second = (message for message in messages if isinstance(message, AIMessage))
    prompts = [pair.renderer.prompt(messages[: messages.index(action)], TOOLS) for action in (first, second)]
    [action] = pair.renderer.render(Step(SHOWN, [first], TOOLS)).actions
    written = len(action.ids) - 1  # the token that ends a turn is chosen, and not read until the next prompt
    assert prompts[1][: len(prompts[0]) + written] == prompts[0] + action.ids[:-1]
    assert [count for count in seen if count > 1] == [len(prompts[0]), len(prompts[1]) - len(prompts[0]) - written]
    found = model._prompts.find(prompts[1])
    assert found is not None
    assert found.ids == prompts[1]
    once = sum(tensor.nbytes for layer in found.layers for tensor in layer)
    most = len(prompts[1]) + DRAWS * TURN
    assert model._prompts.nbytes <= once * most / len(prompts[1])


def test_two_chat_models_on_one_model_share_what_they_read(make: Any) -> None:
    pair = make()
    one, other = _chat(pair), _chat(pair, temperature=0.0)
    seen = _forwarded(pair.policy.model)
    one.invoke("Where is the taxi?")
    kept = one._prompts.nbytes
    first = sum(seen)
    seen.clear()
    other.invoke("Where is the taxi?")
    assert first > TURN
    assert set(seen) == {1}, "nothing but its own turn"
    assert other._prompts is one._prompts
    assert other._prompts.nbytes < 2 * kept


def test_a_conversation_that_somebody_else_drives_is_read_once_by_the_pair_itself(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = make()
    model = _chat(pair)
    model.invoke("Something else.")
    history: list[BaseMessage] = [HumanMessage("Where is the taxi? " * 20)]
    with _scored(monkeypatch, pair) as read:
        for turn in range(4):
            step = Step(list(history), [AIMessage(f"It is in row {turn}.")], conversation="b")
            pair.read_ahead(step.history, conversation="b")
            pair._background.wait()
            pair.score([step])
            history += [step.candidates[0], HumanMessage("Where is it going from there? " * 5)]
    rendered = pair.renderer.render(step)
    assert read["policy"] <= len(rendered.prompt) + len(rendered.actions[0].ids) + 4
    assert read["policy"] == read["reference"]


def test_half_precision_has_a_reading_of_its_own_for_its_bits_depend_on_who_reads(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair, alone = make(dtype=torch.bfloat16), make(dtype=torch.bfloat16)
    with _scored(monkeypatch, pair) as read:
        _talk(pair, _chat(pair), 2)
    assert read["policy"] == read["reference"] > 0
    step = Step(SHOWN, [_chat(pair).bind_tools(TOOLS).invoke(SHOWN)], TOOLS)
    assert pair.score([step]) == alone.score([step])


def test_draws_of_a_model_whose_prompts_cannot_be_shared_read_the_prompt_once(make: Any) -> None:
    pair = make(dtype=torch.bfloat16)
    rows = _rows(pair.policy.model)
    with together(Together(4)):
        _chat(pair).invoke("Where is the taxi?")
    assert rows[0] == 1
    assert set(rows[1:]) == {4}


def _rows(model: PreTrainedModel) -> list[int]:
    seen: list[int] = []
    model.register_forward_pre_hook(
        lambda _module, _arguments, keywords: seen.append(len(keywords["input_ids"])), with_kwargs=True
    )
    return seen


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("role", ROLES)
def test_a_lora_pairs_own_bodies_can_drive(tiny: Build, monkeypatch: pytest.MonkeyPatch, role: str) -> None:
    peft = pytest.importorskip("peft")
    tokenizer = templates.tokenizer("chatml")
    torch.manual_seed(0)
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    pair = LoraPair(peft.get_peft_model(tiny("llama", len(tokenizer)), config), tokenizer)
    history: Sequence[BaseMessage] = [HumanMessage("Find a hotel")]
    action = _chat(pair, role).invoke(history)
    told = generated_of(action)
    assert told is not None
    with _scored(monkeypatch, pair) as read:
        [score] = pair.score([Step(history, [action], conversation="a")])
    assert read[role] == 0
    prompt = pair.renderer.prompt(history)
    [expected] = CausalLM(getattr(pair, role).model).log_probs(prompt, [told.ids])
    [candidate] = score.candidates
    given = candidate.token_log_probs if role == "policy" else candidate.reference_token_log_probs
    np.testing.assert_allclose(given[: len(expected)], expected, atol=1e-4)
