"""Best of N actions: which signal to choose by, how many to draw, of which agent, in which words; when to stop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Literal

import numpy as np
from pa_demos.taxi.environment import Taxi

from benchmarks.selection_arms import Arm, Outcome, Work, agreed, mismatches, repeated, successes
from benchmarks.selection_figures import Figure, Report, difference, mean, share, show
from benchmarks.selection_tables import SPOKEN, Agent, Selector
from benchmarks.selection_twin import run

_AGENTS: tuple[Agent, ...] = ("reference", "policy, 30 % random", "policy")
_NUMBERS = (2, 4, 8, 16)
_SIGNALS: tuple[Selector, ...] = ("progress advantage", "exact advantage", "policy log-prob", "reference log-prob")
_WORDED: tuple[Selector, ...] = (
    "progress advantage",
    "policy log-prob",
    "policy log-prob per token",
    "self-certainty",
    "advantage without the text",
)
_COMPARED = ("share_of_exact_gain", "minus_policy_log_prob")
_RAN: tuple[Selector | Literal["random"], ...] = (*_SIGNALS, "self-certainty", "random")


def selectors(work: Work) -> Report:
    """Best of four of the reference's actions, by six signals, in graphs."""
    arms: dict[str, Arm] = {"unguarded": Arm()}
    for name in _RAN:
        arms[name] = Arm(selector=name, draws=4)
    outcomes = {name: work.outcomes(arm) for name, arm in arms.items()}
    won = {name: successes(each).astype(np.float64) for name, each in outcomes.items()}
    report: Report = {
        name: {
            "success": mean(won[name]),
            "share_of_exact_gain": share(won[name], won["exact advantage"], won["unguarded"]),
            "minus_policy_log_prob": difference(won[name], won["policy log-prob"]),
            "draws_per_step": _draws(outcomes[name]),
        }
        for name in arms
    }
    simulated = [name for name in arms if name != "random"]
    differing = sum(mismatches(outcomes[name], work.twin(arms[name])) for name in simulated)
    report["graph_against_simulation"] = agreed("graphs and simulation", differing)
    report["same_twice"] = repeated(work, arms["progress advantage"], work.seeds[:20])
    show(
        f"Best of 4 of the reference's actions, {len(work.seeds)} episodes each",
        [{"chosen by": name, **{key: report[name][key] for key in report[name]}} for name in arms],
        "random: a random score, so that it picks among the distinct actions drawn; the first draw is `unguarded`.",
    )
    found = report["progress advantage"]["share_of_exact_gain"]
    report["bar"] = {"share_of_exact_gain": found, "at_least": 0.9, "holds": found.low >= 0.9}
    return report


def numbers(work: Work, sample: Sequence[int]) -> Report:
    """The same for more agents and numbers of draws; simulated, and a sample of the episodes run in graphs."""
    rows: list[dict[str, object]] = []
    report: Report = {}
    differing = 0
    for agent in _AGENTS:
        base = work.twin(Arm(agent)).success.astype(np.float64)
        for draws in _NUMBERS:
            arms = {name: Arm(agent, name, draws) for name in _SIGNALS}
            won = {name: work.twin(arm).success.astype(np.float64) for name, arm in arms.items()}
            differing += sum(_checked(work, arm, sample) for arm in (arms["progress advantage"],))
            entry: dict[str, Figure] = {
                "unguarded": mean(base),
                **{name: mean(values) for name, values in won.items()},
                "share_of_exact_gain": share(won["progress advantage"], won["exact advantage"], base),
                "minus_policy_log_prob": difference(won["progress advantage"], won["policy log-prob"]),
            }
            report[f"{agent} | {draws}"] = entry
            rows.append({"agent": agent, "N": draws, **_row(entry)})
    show("Agents and numbers of draws: success", rows, f"episodes that differ from graphs: {differing}")
    return report | {"graph_against_simulation": agreed("numbers of draws", differing)}


def wordings(work: Work, sample: Sequence[int]) -> Report:
    """The reference's actions, worded; simulated, and a sample of the episodes run in graphs."""
    rows: list[dict[str, object]] = []
    report: Report = {}
    differing = 0
    for spoken, draws in product(SPOKEN, (4, 8)):
        arms = {name: Arm("reference", name, draws, spoken) for name in _WORDED}
        won = {name: work.twin(arm).success.astype(np.float64) for name, arm in arms.items()}
        differing += sum(_checked(work, arms[name], sample) for name in ("progress advantage", "policy log-prob"))
        entry: dict[str, Figure] = {name: mean(values) for name, values in won.items()}
        entry["minus_policy_log_prob"] = difference(won["progress advantage"], won["policy log-prob"])
        report[f"{spoken} | {draws}"] = entry
        rows.append({"wordings": spoken, "N": draws, **_row(entry)})
    show(
        "The reference's actions, worded: success",
        rows,
        f"The pair never wrote a text before a call. Episodes that differ from graphs: {differing}",
    )
    return report | {"graph_against_simulation": agreed("wordings", differing)}


def stopping(work: Work) -> Report:
    """Best of 8 that stops early: draws a step, and how often all 8 would have been chosen otherwise; in graphs."""
    rows: list[dict[str, object]] = []
    report: Report = {}
    settings: tuple[tuple[Literal["reference", "policy"], float], ...] = (
        ("reference", 0.05),
        ("reference", 0.1),
        ("policy", 0.05),
    )
    for agent, chance in settings:
        arm = Arm(agent, "progress advantage", 8, stop_at=chance, drawn_by=agent)
        outcomes = work.outcomes(arm)
        won = successes(outcomes).astype(np.float64)
        full = work.twin(Arm(agent, "progress advantage", 8)).success.astype(np.float64)
        other, steps = _otherwise(work, arm, outcomes)
        entry = {
            "draws_per_step": _draws(outcomes),
            "other_choices": other,
            "steps": steps,
            "share_of_other_choices": other / steps,
            "success": mean(won),
            "minus_all_8": difference(won, full),
        }
        report[f"{agent} | {chance}"] = entry
        rows.append({"agent": agent, "stop_at": chance, **entry})
    show("Best of 8 by progress advantage, stopping early", rows)
    return report


def _draws(outcomes: Sequence[Outcome]) -> float:
    return float(np.mean([count for outcome in outcomes for count in outcome.draws]))


def _checked(work: Work, arm: Arm, sample: Sequence[int]) -> int:
    """Episodes of the sample in which a graph does anything else than the simulation."""
    places = np.flatnonzero(np.isin(work.chance.seeds, sample))
    return mismatches(work.outcomes(arm, list(sample)), run(arm.choice(work.tables), work.chance.take(places)))


def _otherwise(work: Work, arm: Arm, outcomes: Sequence[Outcome]) -> tuple[int, int]:
    """Steps in which all draws would have been chosen otherwise, of how many."""
    choice = arm.choice(work.tables)
    other = steps = 0
    for place, (seed, outcome) in enumerate(zip(work.seeds, outcomes, strict=True)):
        taxi, states = Taxi(seed), []
        for action in outcome.actions:
            states.append(taxi.state)
            taxi.act(action)
        chosen = choice(np.array(states), work.chance.draws[place, : len(states)])
        other += int((chosen != np.array(outcome.actions)).sum())
        steps += len(states)
    return other, steps


def _row(entry: Mapping[str, Figure]) -> dict[str, str]:
    """Successes without their intervals; what is compared keeps its own."""
    return {key: str(value) if key in _COMPARED else value.brief for key, value in entry.items()}
