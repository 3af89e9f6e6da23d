"""Which kinds of action get a threshold of their own, and which share one because too little is known of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from pa_middleware.calibration.conformal import Integers, tasks_needed
from pa_middleware.calibration.held_out import left_with_a_fold_held_out
from pa_middleware.calibration.runs import ScoredRun
from pa_middleware.guard.tiers import KINDS, Kind

Pool = tuple[Kind, ...]


def kinds_of(run: ScoredRun, *, each_call: bool) -> set[Kind]:
    """The kinds whose thresholds something in the run is held to."""
    found: set[Kind] = {step.kind for step in run.steps}
    if each_call:
        found |= {tier for step in run.steps for tier, _ in step.calls}
    return found


def one_pool(off: Collection[Kind]) -> list[Pool]:
    """One threshold for every kind that is judged."""
    return [tuple(kind for kind in KINDS if kind not in off)]


def pools_by_kind(
    runs: Sequence[ScoredRun],
    tasks: Integers,
    *,
    alpha: float,
    off: Collection[Kind],
    each_call: bool,
    occurring: Collection[Kind],
) -> list[Pool]:
    """A pool for each kind that occurs in enough tasks; the others share one, with `default` if it occurs.

    alpha is divided by the number of pools, and what a pool needs grows with it: the kind that is seen least joins the
    shared pool until every pool is seen in enough tasks, also with a fold of them held out, or one pool is left.

    Args:
        runs: those that calibrate.
        tasks: of each run.
        alpha: for all pools together.
        off: kinds that are not judged.
        each_call: see `kinds_of`.
        occurring: kinds that occur in any run, also in one that does not calibrate.
    """
    seen: dict[Kind, set[int]] = {kind: set() for kind in KINDS if kind in occurring and kind not in off}
    for run, task in zip(runs, tasks.tolist(), strict=True):
        for kind in kinds_of(run, each_call=each_call) & set(seen):
            seen[kind].add(task)
    shared: list[Kind] = [kind for kind in seen if kind == "default"]
    own = sorted((kind for kind in seen if kind != "default"), key=lambda kind: len(seen[kind]))
    while own:
        needed = tasks_needed(alpha / (len(own) + bool(shared)))
        pooled: set[int] = set().union(*(seen[kind] for kind in shared))
        known = [len(seen[own[0]]), *([len(pooled)] if shared else [])]
        if left_with_a_fold_held_out(min(known)) >= needed:
            break
        shared.append(own.pop(0))
    pools = [tuple(shared)] if shared else []
    pools += [(kind,) for kind in KINDS if kind in own]
    return pools or one_pool(off)
