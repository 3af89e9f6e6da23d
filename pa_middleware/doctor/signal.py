"""Is there something to score by: divergence, spread against noise, and each model's liking for its own texts."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pa_middleware.doctor.distributions import Rows, divergence
from pa_middleware.doctor.findings import Finding, Verdict
from pa_middleware.doctor.sample import Sample
from pa_middleware.doctor.trial import Side, Trial
from pa_middleware.scoring.pair import ModelPair

FAR = 2.0
"""Nats a token of KL on the policy's own texts above which there is a warning: the reference gives a usual token of the
policy's a seventh of its probability, everywhere. Then the ratio tells the policy's format from another."""
TOO_FAR = 5.0
"""Nats a token above which the check fails: less than a hundredth, so the reference reads a foreign language."""
_MARGIN = 3 * math.sqrt(2)
"""Least margins are so many standard deviations of a score's noise; see `ModelPair.least_margin`."""
SURE = 5.0
"""Standard errors that a mean may lie from what theory says. Log-ratios have heavier tails than a normal."""


def distance(pair: ModelPair, sample: Sample, trial: Trial) -> Finding:
    """KL(policy || reference) a token, exactly, on the policy's own texts and on the sample's actions."""
    own = float(np.concatenate(trial.policy.kl).mean())
    ratio = float(np.abs(np.concatenate(trial.policy.ratios)).mean())
    rows = Rows(pair.policy), Rows(pair.reference)
    queries = [query for step in sample.fitted for query in step.queries]
    steps = float(np.concatenate([divergence(*rows, query) for query in queries]).mean())
    noise = math.hypot(pair.policy.chosen.noise, pair.reference.chosen.noise)
    verdict: Verdict = "ok"
    advice = ""
    if ratio <= noise:
        verdict, advice = "failed", "The models hardly differ: take an earlier reference, or a higher precision."
    elif own > FAR:
        verdict = "failed" if own > TOO_FAR else "warning"
        advice = "The ratio measures format more than actions: take a later reference (SFT, or a merged one)."
    return Finding(
        check="divergence",
        verdict=verdict,
        measured=f"KL(policy || reference) is {own:.3g} nats a token on the policy's own texts, {steps:.3g} on the "
        f"sample's actions; mean |log-ratio| of its own tokens {ratio:.3g}.",
        allowed=f"KL at most {FAR:g} on its own texts; |log-ratio| above the noise, {noise:.1e}",
        advice=advice,
        numbers={"own_texts": own, "sample": steps, "mean_absolute_log_ratio": ratio, "noise": noise},
    )


def spread(pair: ModelPair, trial: Trial) -> Finding:
    """How far scores of texts of one prompt lie apart, against the least margin that is more than rounding."""
    side = trial.policy
    deviation = math.sqrt(_variance(side.scores, side.per_prompt))
    margin = pair.least_margin(round(side.tokens / len(side.written)))
    verdict: Verdict = "ok"
    if deviation <= margin / _MARGIN:
        verdict = "failed"
    elif deviation < margin:
        verdict = "warning"
    times = f", {deviation / margin:.3g} times" if margin > 0 else ""
    return Finding(
        check="noise",
        verdict=verdict,
        measured=f"Scores of texts of one prompt spread by {deviation:.3g} (standard deviation){times} the least "
        f"margin of the dtype, {margin:.1e} nats.",
        allowed="a spread of at least one least margin; no more than the noise itself, a quarter of it, fails",
        advice="" if verdict == "ok" else "Load both models in float32; otherwise rounding chooses among actions.",
        numbers={"spread": deviation, "least_margin": margin},
    )


def own_texts(pair: ModelPair, trial: Trial) -> Finding:
    """Each model's own texts score for it: above 0 the policy's, below 0 the reference's.

    Theory says how much (paper, section 3; exact for any two models and any length): the mean score of the policy's
    texts is the mean of their KL(policy || reference), that of the reference's minus that of KL(reference || policy).
    Another mean says that what is scored is not what wrote the texts. Standard errors are of the draws, given the
    prompts.
    """
    ours, theirs = _mean(trial.policy, trial.policy.scores), _mean(trial.reference, trial.reference.scores)
    margin = pair.least_margin(max(len(each) for side in (trial.policy, trial.reference) for each in side.kl))
    off = [
        _mean(side, sign * side.scores - side.divergences) for side, sign in ((trial.policy, 1), (trial.reference, -1))
    ]
    told = {"policy": float(trial.policy.divergences.mean()), "reference": -float(trial.reference.divergences.mean())}
    verdict: Verdict = "ok"
    advice = ""
    if any(abs(mean) > SURE * error + margin for mean, error in off):
        verdict, advice = "failed", "What is scored is not what generates: compare attention, cache and dtype of both."
    elif ours[0] <= 2 * ours[1] or theirs[0] >= -2 * theirs[1]:
        verdict, advice = "warning", "Too few texts to tell the models apart by: examine with more samples."
    return Finding(
        check="own texts",
        verdict=verdict,
        measured=f"Mean score of the policy's texts {ours[0]:+.3g} +- {ours[1]:.2g} (theory {told['policy']:+.3g}), "
        f"of the reference's {theirs[0]:+.3g} +- {theirs[1]:.2g} (theory {told['reference']:+.3g}).",
        allowed=f"above 0 and below 0 by 2 standard errors, and within {SURE:g} of what theory says",
        advice=advice,
        numbers={
            "policy": ours[0],
            "policy_error": ours[1],
            "policy_theory": told["policy"],
            "reference": theirs[0],
            "reference_error": theirs[1],
            "reference_theory": told["reference"],
        },
    )


def _mean(side: Side, values: NDArray[np.float64]) -> tuple[float, float]:
    """The mean and its standard error."""
    return float(values.mean()), math.sqrt(_variance(values, side.per_prompt) / len(values))


def _variance(values: NDArray[np.float64], per_prompt: int) -> float:
    """Of the texts of one prompt, mean over prompts."""
    return float(values.reshape(-1, per_prompt).var(axis=1, ddof=1).mean())
