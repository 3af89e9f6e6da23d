from __future__ import annotations

import numpy as np
import pytest
from pa_demos.taxi.environment import (
    ACTIONS,
    HORIZON,
    MALFORMED,
    Taxi,
    action_of,
    active_states,
    dynamics,
    goal,
    observation,
)
from pa_demos.taxi.exact import occupancy
from pa_demos.taxi.simulation import simulate
from pa_demos.taxi.supervised import behaviour


def _drive(seed: int, actions: list[int]) -> list[int]:
    taxi, seen = Taxi(seed), []
    for action in actions:
        seen.append(taxi.state)
        if not taxi.done:
            taxi.act(action)
    return seen


def test_same_seed_and_actions_see_the_same_rain() -> None:
    actions = np.random.default_rng(3).integers(0, 4, size=20).tolist()
    assert _drive(7, actions) == _drive(7, actions)
    assert len({tuple(_drive(seed, actions)) for seed in range(10)}) == 10


def test_rain_at_a_step_does_not_depend_on_the_actions_before_it() -> None:
    def after(first: int, seed: int) -> str:
        taxi = Taxi(seed)
        taxi.act(first)
        return taxi.act(ACTIONS.index("east"))

    # Both first actions leave the taxi where it is: no passenger is in it yet.
    assert [after(MALFORMED, seed) for seed in range(40)] == [
        after(ACTIONS.index("dropoff"), seed) for seed in range(40)
    ]


def test_goal_and_observation_determine_the_state() -> None:
    states = active_states().tolist()
    assert len(states) == 400
    assert len({(goal(state), observation(state)) for state in states}) == 400


def test_malformed_call_costs_a_step_and_changes_nothing() -> None:
    taxi = Taxi(0)
    before = taxi.observation
    assert taxi.malformed() == before
    assert (taxi.steps, taxi.success) == (1, False)
    assert dynamics().reward[taxi.state, MALFORMED] == -1.0


def test_episode_ends_at_the_horizon_and_refuses_more() -> None:
    taxi = Taxi(0)
    for _ in range(HORIZON):
        assert not taxi.done
        taxi.malformed()
    assert taxi.done
    with pytest.raises(RuntimeError, match="over"):
        taxi.malformed()
    with pytest.raises(ValueError, match="0 to 6"):
        Taxi(0).act(7)


def test_tools_act_in_their_own_episode() -> None:
    taxi, twin = Taxi(5), Taxi(5)
    move, pickup, dropoff = taxi.tools()
    assert [move.name, pickup.name, dropoff.name] == ["move", "pickup", "dropoff"]
    assert move.invoke({"direction": "north"}) == twin.act(ACTIONS.index("north"))
    assert pickup.invoke({}) == twin.act(ACTIONS.index("pickup"))
    assert dropoff.invoke({}) == twin.act(ACTIONS.index("dropoff"))
    assert taxi.steps == 3


def test_only_exact_calls_are_actions() -> None:
    assert [action_of("move", {"direction": name}) for name in ACTIONS[:4]] == [0, 1, 2, 3]
    assert (action_of("pickup", {}), action_of("dropoff", {})) == (4, 5)
    assert action_of("move", {}) is None
    assert action_of("move", {"direction": "up"}) is None
    assert action_of("move", {"direction": ["north"]}) is None
    assert action_of("pickup", {"direction": "north"}) is None
    assert action_of("fly", {}) is None


def test_deliveries_of_taxi_agree_with_the_exact_success_probability() -> None:
    policy = behaviour()
    expected = occupancy(policy)[1]
    sampled = simulate(policy, 4_000, anywhere=0.0, random=np.random.default_rng(0))
    assert abs(sampled.delivered.sum() / 4_000 - expected) < 0.03
    random, delivered = np.random.default_rng(1), 0
    for seed in range(200):
        taxi = Taxi(seed)
        while not taxi.done:
            taxi.act(int(random.choice(MALFORMED, p=policy[taxi.state, :MALFORMED])))
        delivered += taxi.success
    assert abs(delivered / 200 - expected) < 0.1
