"""Are scores what they should be, however they are read: the self-check, stability, and what generation saw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pa_middleware.doctor.findings import Finding
from pa_middleware.doctor.sample import Sample
from pa_middleware.doctor.trial import Trial
from pa_middleware.scoring.pair import ModelPair
from pa_middleware.scoring.scorer import StepScore
from pa_middleware.scoring.self_check import tolerance

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def self_check(pair: ModelPair) -> Finding:
    """How each model is read, and the noise that was measured when it was chosen.

    A pair whose models cannot be read exactly in any way was refused before it came here.
    """
    policy, reference = pair.policy.chosen, pair.reference.chosen
    slow = "anew" in (policy.method, reference.method)
    return Finding(
        check="reading",
        verdict="warning" if slow else "ok",
        measured=f"Policy: {policy.method}, noise {policy.noise:.1e} nats a token. "
        f"Reference: {reference.method}, {reference.noise:.1e}. Repeatable: {'yes' if pair.repeatable else 'no'}.",
        allowed="any way but anew, which reads the whole history again at every step",
        advice="Scores are right, and slow: see `pair.policy.chosen.refused` for why." if slow else "",
        numbers={"policy_noise": policy.noise, "reference_noise": reference.noise},
    )


def stability(pair: ModelPair, sample: Sample) -> Finding:
    """The same steps alone, together, in reverse order, and again: the largest change of a token's log-prob.

    A repeatable pair may not change a bit.
    """
    together = pair.score(sample.steps)
    ways = {
        "alone": [pair.score([step])[0] for step in sample.steps],
        "reversed": pair.score(sample.steps[::-1])[::-1],
        "again": pair.score(sample.steps),
    }
    off = {name: float(np.abs(_log_probs(given) - _log_probs(together)).max()) for name, given in ways.items()}
    most = 0.0 if pair.repeatable else _tolerance(pair.policy.model, pair.reference.model)
    failed = max(off.values()) > most
    changes = ", ".join(f"{name} {value:.1e}" for name, value in off.items())
    return Finding(
        check="stability",
        verdict="failed" if failed else "ok",
        measured=f"Against all steps together, a token's log-prob changes by at most (nats): {changes}.",
        allowed="no change, for the pair is repeatable" if most == 0 else f"at most {most:g}, rounding",
        advice="Scores depend on what else is scored: try repeatable=True, and another attn_implementation."
        if failed
        else "",
        numbers=off,
    )


def generation(pair: ModelPair, trial: Trial) -> Finding:
    """What `generate` saw when the policy wrote, against what scoring reads of the same ids."""
    off = np.concatenate(
        [seen.log_probs - read for seen, read in zip(trial.policy.written, trial.policy.own, strict=True)]
    )
    most = _tolerance(pair.policy.model)
    largest, usual = float(np.abs(off).max()), float(np.sqrt(np.mean(off**2)))
    return Finding(
        check="generation",
        verdict="failed" if largest > most else "ok",
        measured=f"{trial.policy.tokens} tokens the policy wrote: scored and generated log-probs differ by "
        f"{usual:.1e} (root mean square), at most {largest:.1e} nats.",
        allowed=f"at most {most:g}, rounding",
        advice="The model generates with something scoring does not see: compare attention and cache settings."
        if largest > most
        else "",
        numbers={"root_mean_square": usual, "largest": largest},
    )


def _tolerance(*models: PreTrainedModel) -> float:
    return max(tolerance(model) for model in models)


def _log_probs(scores: Sequence[StepScore]) -> NDArray[np.float64]:
    """Of every scored token under both models, in order."""
    candidates = [candidate for score in scores for candidate in score.candidates]
    return np.array(
        [value for each in candidates for value in (*each.token_log_probs, *each.reference_token_log_probs)]
    )
