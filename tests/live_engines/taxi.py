"""Steps of the taxi, and how far two scorers are apart on them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from langchain_core.messages import AIMessage
from pa_demos.taxi.agent import build_agent, first_messages
from pa_demos.taxi.environment import Taxi
from pa_demos.taxi.prompt import ACTION_MESSAGES, TOOLS
from pa_transformers import LocalChatModel

from pa_middleware import ModelPair, Step, StepScore

APART = 0.02
"""Nats that a token's log-prob may differ by between an engine and transformers, both in float32."""


def episode_steps(local: ModelPair, seed: int, most: int = 5) -> list[Step]:
    """Steps whose histories grow, with the action that was taken and three others."""
    taxi = Taxi(seed)
    driver = LocalChatModel(model=local.reference.model, tokenizer=local.tokenizer, max_new_tokens=24)
    graph = build_agent(driver.with_seed(seed), taxi).compile()
    messages = graph.invoke({"messages": first_messages(taxi)})["messages"]
    places = [place for place, message in enumerate(messages) if isinstance(message, AIMessage)]
    return [
        Step(messages[:place], [messages[place], *ACTION_MESSAGES[:3]], TOOLS, f"episode {seed}")
        for place in places[:most]
    ]


def furthest(ours: Sequence[StepScore], theirs: Sequence[StepScore]) -> float:
    """The largest difference of a token's log-prob, under the policy or the reference."""
    apart = [0.0]
    for one, other in zip(ours, theirs, strict=True):
        for mine, its in zip(one.candidates, other.candidates, strict=True):
            assert mine.token_ids == its.token_ids
            apart += [
                float(np.abs(np.subtract(a, b)).max())
                for a, b in (
                    (mine.token_log_probs, its.token_log_probs),
                    (mine.reference_token_log_probs, its.reference_token_log_probs),
                )
            ]
    return max(apart)
