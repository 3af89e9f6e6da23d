"""What the tables are checked with: the pair scoring by itself, and episodes in which both models run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pa_demos.taxi.environment import ACTIONS, active_states, goal, observation
from pa_demos.taxi.episode import Row, run_episode
from pa_demos.taxi.prompt import TOOLS, window

from benchmarks.selection_arms import Arm, Work, successes
from benchmarks.selection_figures import Report, mean, show
from benchmarks.selection_tables import WORDINGS, Tables, certainty, confident_pair, worded
from pa_middleware import Step

_ROWS: tuple[tuple[Row, Arm], ...] = (
    ("unguarded", Arm()),
    ("best_of_4", Arm(selector="progress advantage", draws=4)),
    ("oracle", Arm(selector="exact advantage", draws=4)),
)


def agreement(tables: Tables, count: int = 200) -> Report:
    """Largest difference between a table and the pair asked about one action alone, nats."""
    random = np.random.default_rng(1)
    states, actions = random.choice(active_states(), count), random.integers(0, len(ACTIONS), count)
    wordings = np.where(random.random(count) < 0.5, 0, random.integers(0, WORDINGS, count))
    worst = dict.fromkeys(("score", "policy_log_prob", "reference_log_prob", "self_certainty"), 0.0)
    for state, action, wording in zip(states.tolist(), actions.tolist(), wordings.tolist(), strict=True):
        step = Step(window(goal(state), observation(state)), [worded(action, wording, "call")], TOOLS)
        (found,) = confident_pair().score([step])[0].candidates
        at = state, action, wording
        for name, live, table in (
            ("score", found.score, tables.score),
            ("policy_log_prob", found.policy_log_prob, tables.policy),
            ("reference_log_prob", found.reference_log_prob, tables.reference),
            ("self_certainty", certainty(found), tables.certainty),
        ):
            worst[name] = max(worst[name], abs(live - float(table[at])))
    show(
        f"Tables against the live pair, {count} actions: largest difference, nats",
        [{k: f"{v:.1e}" for k, v in worst.items()}],
    )
    return {"actions": count, **worst}


def live_row(row: Row, seed: int) -> tuple[bool, int]:
    """Whether an episode of the demo succeeds, in which both models run; and its steps."""
    episode = run_episode(row, seed)
    return episode.success, episode.steps


def real_models(work: Work, seeds: Sequence[int]) -> Report:
    """Episodes with real models next to those from tables: the same worlds, other dice of the agent."""
    rows, report = [], {}
    for row, arm in _ROWS:
        real = np.array([float(success) for success, _ in work.each(live_row, row, seeds)])
        tabled = successes(work.outcomes(arm, seeds)).astype(np.float64)
        report[row] = {"real_models": mean(real), "tables": mean(tabled)}
        rows.append({"arm": row, **report[row]})
    show(f"Real models next to tables, the reference drives, {len(seeds)} episodes", rows, "other dice, so not paired")
    return report | {"episodes": len(seeds)}
