"""The arithmetic of task vectors: trimming, dropping, electing signs. Pure functions on tensors of one name.

The arithmetic is that of the paper's official code, value for value, given the same random generator.
`peft.utils.merge_utils` elects signs the same way and is used for it. It trims and drops differently: of equal
magnitudes it keeps some and not the others, where the density comes to less than one value it keeps none, and it draws
from the global generator.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pa_middleware.scoring.errors import PairError

if TYPE_CHECKING:
    import torch


def aligned(tensor: torch.Tensor, shape: Sequence[int], name: str = "tensor") -> torch.Tensor:
    """A tensor with as many rows as asked for: cut off, or its last row repeated.

    Checkpoints of one family pad their vocabulary to different sizes; no token has the rows beyond it.

    Args:
        tensor: shape (rows, ...).
        shape: the same, but for the rows.
        name: what it is called in the error.

    Raises:
        PairError: the shapes differ in more than the rows.
    """
    if tuple(tensor.shape) == tuple(shape):
        return tensor
    if len(shape) < 2 or tuple(tensor.shape[1:]) != tuple(shape[1:]):
        raise PairError(
            f"{name!r} is {tuple(tensor.shape)} in one model and {tuple(shape)} in the reference; only the rows of a "
            "matrix may differ, by the padding of the vocabulary. Merged are models of one architecture and size"
        )
    import torch

    missing = shape[0] - tensor.shape[0]
    if missing < 0:
        return tensor[: shape[0]]
    return torch.cat([tensor, tensor[-1:].expand(missing, *shape[1:])])


def trimmed(vector: torch.Tensor, density: float) -> torch.Tensor:
    """A task vector's largest values by magnitude, zero elsewhere.

    Kept is what is at least as large as the k-th largest, k = max(1, int(density * size)): more than k values where
    several equal it. Naively: sort the magnitudes, compare each value with the k-th.

    Args:
        vector: float32, any shape.
        density: part of the values, in (0, 1].
    """
    size = vector.numel()
    keep = max(1, int(density * size))
    if keep >= size:
        return vector
    magnitudes = vector.abs()
    least = magnitudes.flatten().kthvalue(size - keep + 1).values
    return vector * (magnitudes >= least)


def dropped(vector: torch.Tensor, density: float, generator: torch.Generator) -> torch.Tensor:
    """A task vector of which each value is kept with this probability and divided by it, so that its mean stays.

    Args:
        vector: float32, any shape.
        density: in (0, 1].
        generator: draws one number per value.
    """
    import torch

    if density >= 1:
        return vector
    return vector * torch.bernoulli(torch.full_like(vector, density), generator=generator) / density


def elected(vectors: Sequence[torch.Tensor], *, mean: bool) -> torch.Tensor:
    """Several task vectors in one: of each value, the sum (or mean) of those with the sign that their total has.

    One vector is what comes out. A total of zero counts as positive.

    Args:
        vectors: float32, one shape.
        mean: divide by how many had the sign.

    Raises:
        PairError: peft is not installed.
    """
    import torch

    if len(vectors) == 1:
        return vectors[0]
    try:
        from peft.utils.merge_utils import calculate_majority_sign_mask, disjoint_merge
    except ImportError as error:
        raise PairError(
            "several task vectors are merged by peft, which is not installed: pip install 'pa-middleware[lora]'"
        ) from error
    stacked = torch.stack(list(vectors))
    mask = calculate_majority_sign_mask(stacked, method="total")
    return disjoint_merge(stacked, mask) if mean else (stacked * mask).sum(0)


def unified(vectors: Sequence[torch.Tensor], target: int) -> torch.Tensor:
    """The unified vector of EMR-Merging where the target's own vector has the elected sign, else zero; not rescaled.

    Each value is the largest magnitude among the vectors that have the elected sign, with that sign.

    Args:
        vectors: float32, one shape.
        target: which of them is reconstructed.
    """
    import torch

    if len(vectors) == 1:
        return vectors[0]
    sign = torch.where(sum(vectors[1:], vectors[0]) > 0, 1.0, -1.0)
    largest = torch.zeros_like(sign)
    for vector in vectors:
        largest = torch.maximum(largest, (vector * sign).clamp(min=0))
    return largest * sign * (vectors[target] * sign > 0)
