"""What rules mean, in a few lines for a human."""

from __future__ import annotations

from collections.abc import Iterator

from pa_middleware.guard.calibrated import Calibration
from pa_middleware.guard.rules import Rules
from pa_middleware.guard.tiers import KINDS

_LOW = {
    "abstain": "the run ends with a safe message",
    "flag": "the best draw runs, marked",
    "block": "its low calls are answered by an error message, the others run; a low answer ends the run",
    "escalate": "a human is asked before any of its tools runs; a low answer ends the run",
}
_FAILED = {
    "abstain": "the run ends with a safe message",
    "flag": "the action runs unscored, marked",
    "escalate": "a human is asked before any of its tools runs",
}


def told(rules: Rules) -> str:
    """The rules as text, a line for each thing they say."""
    return "\n".join(_lines(rules))


def _lines(rules: Rules) -> Iterator[str]:
    shadow = rules.effective_mode == "shadow"
    if shadow:
        why = "" if rules.mode else ", since the threshold is not calibrated"
        yield f"Mode shadow{why}: each action is drawn once, scored and decided on, and nothing is changed."
        yield "In mode enforce:"
    else:
        yield "Mode enforce."
    if rules.judges:
        for kind in KINDS:
            threshold = rules.threshold_of(kind)
            yield f"  {kind:12} " + ("not judged" if threshold is None else f"passes from {threshold:.6g} on")
    else:
        yield "  No threshold: actions are scored and recorded, and none is judged."
    yield from (f"  {name!r} is {tier}" for name, tier in rules.tools.items())
    draws = "1 draw" if rules.draws == 1 else f"up to {rules.draws} draws"
    limit = "" if rules.draws_per_run is None else f", {rules.draws_per_run} in a run"
    best = "; the best of them is taken" if rules.select == "best" else ""
    yield f"  A step has {draws}{limit}{best}."
    if rules.stop_at is not None:
        yield (
            f"  It has fewer once the chance that those left hold a better one is at most {rules.stop_at:g}, the draws "
            f"being the {rules.drawn_by}'s."
        )
    if rules.judges:
        yield f"  When none passes, {_LOW[rules.on_low]}."
    late = "" if rules.scoring_timeout is None else f" or takes more than {rules.scoring_timeout:g} s"
    yield f"  When the scorer fails{late}, {_FAILED[rules.on_scorer_error]}."
    if rules.trust_human_edits:
        yield "  What a human edited runs unscored."
    yield f"  The safe message: {rules.abstain_message!r}"
    if rules.calibration is not None:
        yield _origin(rules.calibration)
    elif rules.judges:
        yield "Not calibrated." if shadow else "Not calibrated: the thresholds are enforced as they are."


def _origin(calibration: Calibration) -> str:
    whose = "successful runs" if calibration.method == "conformal" else "all runs, good or not,"
    success = ", with a map to the probability of success" if calibration.success else ""
    scorer = ", ".join(f"{name} {part[:12]}" for name, part in sorted(calibration.fingerprint.items()))
    return (
        f"Calibrated on {calibration.date} on {calibration.runs} runs of {calibration.tasks} tasks{success}: on "
        f"average over calibrations, at most {calibration.bound:.1%} of {whose} of new tasks have an action below its "
        "threshold. "
        f"Holds for the scorer {scorer}."
    )
