"""Do the weights say that one model was trained from the other: correlation, matrix by matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pa_middleware.doctor.findings import Finding, Verdict, not_checked
from pa_middleware.scoring.weights import some_values

if TYPE_CHECKING:
    import torch
    from torch import nn

RELATED = 0.9
"""Median correlation from which the models are kin. Fine-tuning moves weights by a few per cent of their size, which
leaves a correlation above 0.99; a change as large as half the weights leaves 0.9."""
UNRELATED = 0.3
"""Median correlation below which they are not. Models trained apart, or with their neurons in another order, are near
0; a change three times as large as the weights leaves 0.3."""


def correlations(policy: nn.Module, reference: nn.Module) -> dict[str, float]:
    """Pearson correlation of each matrix of one name in both, over `some_values` of it.

    Of 4,096 values chance alone correlates by 0.016, one standard deviation.

    Only what has two axes or more counts: norms and biases are alike in models that never met. Where matrices have
    different numbers of rows (a padded vocabulary), the rows of both are compared. One that is constant has none.

    Raises:
        RuntimeError, TypeError: values are not in memory.

    Naive equivalent: `np.corrcoef` of the flattened matrices, where they are small enough to be read whole.
    """
    theirs = dict(reference.named_parameters())
    found: dict[str, float] = {}
    for name, ours in policy.named_parameters():
        other = theirs.get(name)
        if other is None or ours.ndim < 2 or ours.shape[1:] != other.shape[1:]:
            continue
        rows = min(len(ours), len(other))
        first, second = _values(ours[:rows]), _values(other[:rows])
        if first.std() > 0 and second.std() > 0:
            found[name] = 1.0 if np.array_equal(first, second) else float(np.corrcoef(first, second)[0, 1])
    return found


def lineage(policy: nn.Module, reference: nn.Module) -> Finding:
    """Median and lowest of `correlations`; identical models fail too, for every score of theirs would be 0."""
    try:
        found = correlations(policy, reference)
        same = _identical(policy, reference)
    except (RuntimeError, TypeError) as error:
        return not_checked("lineage", f"The weights could not be read: {error}")
    allowed = f"median at least {RELATED}, and not identical"
    if not found:
        return Finding(
            check="lineage",
            verdict="failed",
            measured="No matrix has the same name and width in both models.",
            allowed=allowed,
            advice="Use the model that the policy was trained from.",
        )
    median, least = float(np.median(list(found.values()))), min(found, key=lambda name: found[name])
    measured = f"{len(found)} matrices correlate by {median:.3f} (median); lowest {found[least]:.3f}, {least}."
    verdict: Verdict = "ok"
    advice = ""
    if same:
        verdict, measured = "failed", f"{measured} All values that were read are identical."
        advice = "Every score would be 0: give the reference, not the policy, as second model."
    elif median < RELATED:
        verdict = "failed" if median < UNRELATED else "warning"
        advice = "Use the model that RL started from: this one was trained apart, or changed a lot in between."
    elif found[least] < UNRELATED:
        verdict, advice = "warning", "A part of one model was replaced: look at that matrix."
    return Finding(
        check="lineage",
        verdict=verdict,
        measured=measured,
        allowed=allowed,
        advice=advice,
        numbers={"median": median, "lowest": found[least], "matrices": len(found)},
    )


def _identical(policy: nn.Module, reference: nn.Module) -> bool:
    """All parameters, small ones as well, in the values that are read."""
    theirs = dict(reference.named_parameters())
    return all(
        name in theirs and tensor.shape == theirs[name].shape and np.array_equal(_values(tensor), _values(theirs[name]))
        for name, tensor in policy.named_parameters()
    )


def _values(tensor: torch.Tensor) -> NDArray[np.float64]:
    values: NDArray[np.float64] = some_values(tensor).double().numpy()
    return values
