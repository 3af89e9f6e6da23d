"""A local model tells the tokens that it wrote, and the pair that holds it asks it nothing."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import pytest
import torch
from guard.agents import How, run
from langchain_core.messages import AIMessage, BaseMessage
from pa_demos.taxi.agent import build_agent, first_messages, shown
from pa_demos.taxi.environment import Taxi, active_states, goal, observation
from pa_demos.taxi.episode import PAIR
from pa_demos.taxi.prompt import TOOLS, window
from pa_transformers import LocalChatModel

from pa_middleware import Guard, ModelPair, Rules, Step
from pa_middleware.guard.drawing import Together, together
from pa_middleware.scoring.causal_lm import CausalLM
from pa_middleware.scoring.generated import GENERATED, generated_of, prompt_digest, without_generated
from pa_middleware.scoring.rendering import Renderer

STATE = int(active_states()[211])
SHOWN = window(goal(STATE), observation(STATE))


@pytest.fixture(scope="module")
def pair() -> ModelPair:
    torch.set_num_threads(1)
    return ModelPair.from_pretrained(PAIR / "policy", PAIR / "reference")


def _chat(pair: ModelPair, role: str = "reference", **settings: Any) -> LocalChatModel:
    model = getattr(pair, role).model
    return LocalChatModel(model=model, tokenizer=pair.tokenizer, max_new_tokens=24, **{"seed": 1, **settings})


@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("draws", [1, 3])
def test_a_message_tells_its_tokens_and_their_log_probs_before_temperature(
    pair: ModelPair, temperature: float, draws: int
) -> None:
    model = _chat(pair, temperature=temperature).bind_tools(TOOLS)
    with together(Together(draws)) as step:
        messages = []
        for left in reversed(range(draws)):
            messages.append(model.invoke(SHOWN))
            step.wanted = max(1, left)
    prompt = pair.renderer.prompt(SHOWN, TOOLS)
    for message in messages:
        told = generated_of(message)
        assert told is not None
        [expected] = CausalLM(pair.reference.model).log_probs(prompt, [told.ids])
        np.testing.assert_allclose(told.log_probs, expected, atol=1e-4)
        assert told.prompt == prompt_digest(prompt)
        [call] = message.tool_calls
        assert call["name"] in pair.tokenizer.decode(list(told.ids))


@pytest.fixture
def asked(pair: ModelPair, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """How many tokens each model of the pair is asked about."""
    counts = {"policy": 0, "reference": 0}

    def counting(role: str) -> Any:
        answer = getattr(pair, role).answer

        def count(queries: Any, *args: Any, **kwargs: Any) -> Any:
            counts[role] += sum(len(query.scored) for query in queries)
            return answer(queries, *args, **kwargs)

        return count

    for role in counts:
        monkeypatch.setattr(getattr(pair, role), "answer", counting(role))
    yield counts
    pair.forget()


@pytest.mark.parametrize("role", ["policy", "reference"])
@pytest.mark.parametrize("how", ["sync", "async"])
def test_in_a_guarded_run_the_agents_own_model_is_never_asked_and_the_scores_are_the_same(
    pair: ModelPair, asked: dict[str, int], role: str, how: How
) -> None:
    taxi = Taxi(seed=3)
    guard = Guard(pair, Rules(select="best", draws=3), history=shown)
    graph = guard.install(build_agent(_chat(pair, role), taxi)).compile()
    state = run(graph, {"messages": first_messages(taxi)}, {"recursion_limit": 100}, how=how)
    assert asked[role] == 0
    assert sum(asked.values()) > 0
    history: list[BaseMessage] = []
    records = iter(state["pa"])
    for message in state["messages"]:
        if isinstance(message, AIMessage):
            record = next(records)
            [again] = pair.score([Step(shown(cast("Any", {"messages": history})), [message], TOOLS)])
            assert record["score"] == pytest.approx(again.candidates[0].score, abs=1e-3)
        history.append(message)


@pytest.mark.parametrize("how", ["sync", "async"])
def test_no_tokens_are_left_in_the_graphs_state(pair: ModelPair, how: How) -> None:
    taxi = Taxi(seed=3)
    graph = Guard(pair, Rules(mode="shadow"), history=shown).install(build_agent(_chat(pair), taxi)).compile()
    state = run(graph, {"messages": first_messages(taxi)}, {"recursion_limit": 100}, how=how)
    actions = [message for message in state["messages"] if isinstance(message, AIMessage)]
    assert actions
    assert not [message for message in actions if GENERATED in message.response_metadata]
    assert all("finish_reason" in message.response_metadata for message in actions)


def test_without_its_tokens_the_same_action_is_scored_from_its_text(pair: ModelPair) -> None:
    message = _chat(pair).bind_tools(TOOLS).invoke(SHOWN)
    exact, text = (
        pair.score([Step(SHOWN, [action], TOOLS)])[0].candidates[0] for action in (message, without_generated(message))
    )
    assert (exact.retokenized, text.retokenized) == (False, True)
    assert exact.score == pytest.approx(text.score, abs=1e-4)


def test_the_prompt_is_rendered_with_the_arguments_given(pair: ModelPair) -> None:
    tokenizer = copy.deepcopy(pair.tokenizer)
    tokenizer.chat_template = "{{ mark or '' }}" + str(tokenizer.chat_template)
    model = LocalChatModel(model=pair.reference.model, tokenizer=tokenizer, seed=1, template_kwargs={"mark": "now"})
    told = generated_of(model.bind_tools(TOOLS).invoke(SHOWN))
    assert told is not None
    assert told.prompt == prompt_digest(Renderer(tokenizer, template_kwargs={"mark": "now"}).prompt(SHOWN, TOOLS))
