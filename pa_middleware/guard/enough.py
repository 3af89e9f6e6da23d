"""When more draws are pointless: a bound on the chance that those left hold anything better.

Draws are samples of the model that makes them, and the log-prob of every action drawn is known under both models. So is
the probability mass of all actions not drawn yet, u(pi) = 1 - sum of pi(a) over the distinct actions a drawn, and only
they can change the choice. One more draw is better with probability at most

    u(policy)                                           if the policy draws,
    min(u(reference), exp(-b / beta) * u(policy))       if the reference draws and b is the best score that passes,

the latter since an action with a score above b has reference(a) < policy(a) * exp(-b / beta). A step that stops at a
chance of `stop_at` that the draws left hold a better one takes, with at least probability 1 - stop_at, what it would
have taken after all of them.

It holds for samples at temperature 1, of a model that sees the prompt that is scored. Cutting off the tail (top-k,
top-p) only makes u(.) smaller, and so keeps the bound for draws of the policy; for the reference's it voids the second
term. Where messages tell how they were sampled, `void_for` finds those it does not hold for. A scorer that would fail
on a draw not made is not reckoned with.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pa_middleware.guard.judge import Draw, passes
from pa_middleware.guard.rules import Rules
from pa_middleware.scoring.generated import generated_of

_PLAIN: dict[str, tuple[float, ...]] = {
    **dict.fromkeys(("temperature", "top_p", "repetition_penalty"), (1.0,)),
    **dict.fromkeys(("min_p", "presence_penalty", "frequency_penalty"), (0.0,)),
    "top_k": (-1.0, 0.0),
}
"""Values under which a setting leaves the model as it is."""
_CUTS = ("top_k", "top_p", "min_p")
"""Settings that leave the tail out, and all else in proportion."""


def chance_of_better(draws: Sequence[Draw], left: int, rules: Rules, *, beta: float = 1.0) -> float:
    """An upper bound on the probability that any of the draws left would be taken instead of those made; 0 to 1.

    Args:
        draws: those made, scored as far as they can be.
        left: how many more there would be.
        rules: which draws pass, and who makes them (`drawn_by`).
        beta: of the scores, which are log-ratios of the two models times beta, summed over the whole action.

    Naive equivalent, for `policy`: `1 - (1 - (1 - sum(exp(policy_log_prob) of the distinct draws))) ** left`.
    """
    # Actions that a template writes alike are one: by their tokens' log-ratios and log-probs, which then are the same.
    # Two that only score the same count as one too, which errs on the side of more draws.
    distinct = {
        (draw.score.token_log_ratios, draw.score.policy_log_prob): (draw.score, draw.log_prob_margin)
        for draw in draws
        if draw.same_as is None and draw.score is not None
    }
    seen = list(distinct.values())
    unseen = 1 - sum(math.exp(score.policy_log_prob - margin) for score, margin in seen)
    if rules.drawn_by == "reference":
        of_reference = 1 - sum(math.exp(score.reference_log_prob - margin) for score, margin in seen)
        good = [(draw.score.score, draw.least_margin) for draw in draws if draw.score and passes(draw, rules)]
        # The first of those that score highest leads, and what scores below it by more than its margin changes nothing.
        best, rounding = max(good, key=lambda each: each[0], default=(0.0, 0.0))
        unseen = min(of_reference, unseen * _exp((rounding - best) / beta)) if good else of_reference
    return 1 - (1 - min(1.0, max(0.0, unseen))) ** left


def void_for(draws: Sequence[Draw], rules: Rules) -> str | None:
    """How a draw was sampled if that is told and the bound does not hold for it, such as "temperature=0.7".

    A setting that is not known to leave the bound alone counts as one that does not. None if all is well, or not told.
    """
    for draw in draws:
        generated = generated_of(draw.proposal.action)
        if generated is not None and generated.sampling and not _sampled_plainly(generated.sampling, rules):
            return generated.sampling
    return None


def _sampled_plainly(sampling: str, rules: Rules) -> bool:
    settings = (setting.partition("=") for setting in sampling.split(","))
    return all(
        (rules.drawn_by == "policy" and name in _CUTS) or _number(value) in _PLAIN.get(name, ())
        for name, _, value in settings
    )


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _exp(value: float) -> float:
    return math.exp(min(value, 700.0))  # beyond it a float ends; a bound that large says nothing anyway
