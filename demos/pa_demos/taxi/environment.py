"""Gymnasium's rainy Taxi as an agent with tools sees it: text observations, tool calls, 30 steps.

The passenger must be fetched and brought to one of four stops. In the rain a move goes astray one time in five, a
wrong pick-up or drop-off costs 10, delivery earns 20, every other step costs 1. An action that cannot be read is a
seventh one, `MALFORMED`: nothing happens and the step costs 1.

The transition table is gymnasium's own. It serves to simulate (sample next states) and, in `exact`, to compute the
ground truth; nothing here knows a language model.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import gymnasium
import numpy as np
from langchain_core.tools import BaseTool, StructuredTool

HORIZON = 30
"""Steps after which an episode ends undelivered."""
GAMMA = 0.97
"""Discount per step."""
BETA = 1.0
"""Weight of the KL penalty, in units of reward per nat."""

ACTIONS = ("south", "north", "east", "west", "pickup", "dropoff")
"""The six legal actions; the position in this tuple is gymnasium's number of the action."""
MALFORMED = len(ACTIONS)
"""Number of the seventh action: text that is no legal call."""
ACTION_COUNT = len(ACTIONS) + 1
STATE_COUNT = 500

PLACES = ("Red", "Green", "Yellow", "Blue")
STOPS = ((0, 0), (0, 4), (4, 0), (4, 3))
"""Row and column of each place."""
IN_TAXI = len(PLACES)
_OUTCOMES = 3  # the intended cell and, in the rain, the two beside it

Direction = Literal["north", "south", "east", "west"]


@dataclass(frozen=True, slots=True)
class Dynamics:
    """The environment's transition table as arrays; S = 500 states, 7 actions, up to 3 outcomes each."""

    probability: np.ndarray
    """float64 [S, 7, 3]; sums to 1 over the last axis, 0 for outcomes that do not exist."""
    next_state: np.ndarray
    """int64 [S, 7, 3]."""
    reward: np.ndarray
    """float64 [S, 7]; the reward depends on state and action only."""
    delivers: np.ndarray
    """bool [S, 7]; True where the action ends the episode with success."""
    start: np.ndarray
    """float64 [S]; distribution of the first state."""


@cache
def dynamics() -> Dynamics:
    """Gymnasium's table of the rainy Taxi, with the malformed action added."""
    env: Any = gymnasium.make("Taxi-v4", is_rainy=True, rainy_probability=0.8).unwrapped
    probability = np.zeros((STATE_COUNT, ACTION_COUNT, _OUTCOMES))
    next_state = np.tile(np.arange(STATE_COUNT)[:, None, None], (1, ACTION_COUNT, _OUTCOMES))
    reward = np.full((STATE_COUNT, ACTION_COUNT), -1.0)
    delivers = np.zeros((STATE_COUNT, ACTION_COUNT), dtype=bool)
    probability[:, MALFORMED, 0] = 1.0
    for state, by_action in env.P.items():
        for action, outcomes in by_action.items():
            for index, (chance, following, gain, done) in enumerate(outcomes):
                probability[state, action, index] = chance
                next_state[state, action, index] = following
                reward[state, action] = gain
                delivers[state, action] = done
    probability /= probability.sum(axis=-1, keepdims=True)
    start = np.asarray(env.initial_state_distrib, dtype=np.float64)
    return Dynamics(probability, next_state, reward, delivers, start / start.sum())


def decode(state: int) -> tuple[int, int, int, int]:
    """Row, column, passenger (a place, or `IN_TAXI`) and destination (a place) of a state number."""
    rest, destination = divmod(state, 4)
    rest, passenger = divmod(rest, 5)
    row, column = divmod(rest, 5)
    return row, column, passenger, destination


def active_states() -> np.ndarray:
    """int64 [400]: the states in which an episode can be under way, ascending."""
    decoded = np.array([decode(state) for state in range(STATE_COUNT)])
    return np.flatnonzero(decoded[:, 2] != decoded[:, 3])


def goal(state: int) -> str:
    """The task's text; the same in every state of an episode."""
    return f"Bring the passenger to {PLACES[decode(state)[3]]}."


def observation(state: int) -> str:
    """What the agent is shown of a state; with `goal` it determines the state."""
    row, column, passenger, _ = decode(state)
    where = "in the taxi" if passenger == IN_TAXI else f"at {PLACES[passenger]}"
    return f"Taxi at row {row}, column {column}. Passenger {where}."


def action_of(name: str, args: Mapping[str, Any]) -> int | None:
    """Number of the action that a tool call asks for; None if there is no such call.

    Args:
        name: the tool's name.
        args: its arguments. Unknown or missing arguments make the call malformed.
    """
    if name == "move" and set(args) == {"direction"} and args["direction"] in ACTIONS[:4]:
        return ACTIONS.index(args["direction"])
    if name in ACTIONS[4:] and not args:
        return ACTIONS.index(name)
    return None


class Taxi:
    """One episode. Agents that act alike see the same rain: step t of seed s always draws the same chance.

    Example:
        >>> taxi = Taxi(seed=0)
        >>> taxi.act(ACTIONS.index("north")) == taxi.observation
        True
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        # The start is drawn under the key that no step uses, so that it does not depend on how long an episode lasts.
        self.state: int = int(self._random(HORIZON).choice(STATE_COUNT, p=dynamics().start))
        self._before: tuple[int, ...] = ()  # the state before each step taken
        self.success: bool = False

    @property
    def steps(self) -> int:
        """Steps taken so far."""
        return len(self._before)

    @property
    def goal(self) -> str:
        """The task's text."""
        return goal(self.state)

    @property
    def observation(self) -> str:
        """The current state's text."""
        return observation(self.state)

    @property
    def done(self) -> bool:
        """True once the passenger is delivered or all steps are used."""
        return self.success or self.steps >= HORIZON

    def act(self, action: int) -> str:
        """Take one step and answer the new observation.

        Args:
            action: position in `ACTIONS`, or `MALFORMED`.

        Raises:
            RuntimeError: the episode is over.
            ValueError: there is no such action.
        """
        if self.done:
            raise RuntimeError("the episode is over; make a new Taxi")
        if not 0 <= action <= MALFORMED:
            raise ValueError(f"action must be 0 to {MALFORMED}, not {action!r}")
        world = dynamics()
        bounds = np.cumsum(world.probability[self.state, action])
        outcome = min(int(np.searchsorted(bounds, self._random(self.steps).random(), side="right")), _OUTCOMES - 1)
        self._before = (*self._before, self.state)
        self.success = bool(world.delivers[self.state, action])
        self.state = int(world.next_state[self.state, action, outcome])
        return self.observation

    def malformed(self) -> str:
        """Take a step in which nothing happens: the agent wrote no legal call."""
        return self.act(MALFORMED)

    def after(self, steps: int, *, rain: int | None = None) -> Taxi:
        """Another taxi, as this one was after so many steps; it goes on in the same rain.

        Args:
            steps: 0 is the start.
            rain: seed of other rain from there on.

        Raises:
            ValueError: this one has not taken so many steps.
        """
        if not 0 <= steps <= self.steps:
            raise ValueError(f"steps must be 0 to {self.steps}, the steps taken so far, not {steps!r}")
        twin = copy.copy(self)
        if rain is not None:
            twin._seed = rain
        if steps < self.steps:
            twin.state, twin.success = self._before[steps], False  # an episode that goes on has not delivered yet
            twin._before = self._before[:steps]
        return twin

    def tools(self) -> list[BaseTool]:
        """The tools of this episode; each acts and answers the new observation."""
        return taxi_tools(self.act)

    def _random(self, step: int) -> np.random.Generator:
        return np.random.default_rng((self._seed, step))


def taxi_tools(act: Callable[[int], str]) -> list[BaseTool]:
    """The agent's tools: move, pickup and dropoff.

    Args:
        act: takes the step of an action's number and answers the new observation.
    """

    def move(direction: Direction) -> str:
        """Drive one cell; in the rain the taxi may drift sideways."""
        return act(ACTIONS.index(direction))

    def pickup() -> str:
        """Take the passenger into the taxi."""
        return act(ACTIONS.index("pickup"))

    def dropoff() -> str:
        """Let the passenger out of the taxi."""
        return act(ACTIONS.index("dropoff"))

    return [StructuredTool.from_function(tool) for tool in (move, pickup, dropoff)]
