"""What the confidence of an attribution is worth: is it the share in which the first suspect is the worst step?"""

from __future__ import annotations

import numpy as np

from benchmarks.attribution_hits import hits, reliability, worst
from benchmarks.attribution_runs import Details, Failures, exact, traced
from benchmarks.selection_figures import Report, mean, show
from benchmarks.selection_tables import Tables
from pa_middleware.debugging import explain


def confidence(tables: Tables, told: Details, least_margin: float, failed: Failures) -> Report:
    """`explain` on the failed runs of one agent, as their traces are read."""
    found = [explain(traced(told, least_margin, failed, row)) for row in range(len(failed.worlds))]
    hit = hits([[suspect.step for suspect in each.suspects] for each in found], worst(exact(tables, failed)))
    stands = np.array([each.stands_out for each in found])
    sure = np.array([np.nan if each.stays_first is None else each.stays_first for each in found])
    if np.isnan(sure).any():
        raise ValueError("an attribution has no confidence, though every token's log-ratio was given")
    bins = reliability(sure, hit)
    report: Report = {
        "top-1": mean(hit),
        "mean_confidence": float(sure.mean()),
        "off_by": sum(each["runs"] * abs(each["mean"] - each["hits"].mean) for each in bins) / len(hit),
        "stands_out": mean(stands.astype(np.float64)),
        "runs_where_one_stands_out": int(stands.sum()),
        "top-1_where_one_stands_out": mean(hit[stands]) if stands.any() else None,
        "top-1_where_none_does": mean(hit[~stands]) if not stands.all() else None,
        "bins": bins,
    }
    show(
        f"Confidence, agent: {failed.agent}",
        bins,
        f"mean confidence {report['mean_confidence']:.3f}, top-1 {report['top-1']}, off by {report['off_by']:.3f} on "
        f"average; a step stands out in {stands.sum()} runs, {report['stands_out']}: "
        f"top-1 {report['top-1_where_one_stands_out']}, else {report['top-1_where_none_does']}",
    )
    return report
