"""Steps of the taxi, with all its actions as candidates."""

from __future__ import annotations

from pa_demos.taxi.agent import first_messages
from pa_demos.taxi.environment import Taxi
from pa_demos.taxi.prompt import ACTION_MESSAGES, TOOLS

from pa_middleware import Step


def taxi_step(seed: int, *, candidates: int = 6, conversation: str | None = None) -> Step:
    """The first step of an episode."""
    return Step(first_messages(Taxi(seed=seed)), ACTION_MESSAGES[:candidates], TOOLS, conversation)
