"""The official arithmetic of merging, stated once more: loops over values, all weights of all models at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Weights = Mapping[str, torch.Tensor]


def trim(vector: Floats, density: float) -> Floats:
    size = vector.size
    keep = max(1, int(density * size))
    least = sorted(abs(vector.ravel()), reverse=True)[keep - 1]
    return np.where(abs(vector) >= least, vector, np.float32(0))


def drop(vector: Floats, density: float, generator: torch.Generator) -> Floats:
    if density >= 1:
        return vector
    kept = torch.bernoulli(torch.full(vector.shape, density), generator=generator).numpy()
    out: Floats = vector * kept / np.float32(density)
    return out


def elect(vectors: Sequence[Floats], *, mean: bool) -> Floats:
    total = np.zeros_like(vectors[0])
    for place in np.ndindex(total.shape):
        values = [vector[place] for vector in vectors]
        sign = 1 if np.sum(values, dtype=np.float32) >= 0 else -1
        agreeing = [value for value in values if np.sign(value) == sign]
        total[place] = np.sum(agreeing, dtype=np.float32) / np.float32(max(1, len(agreeing)) if mean else 1)
    return total


def unify(vectors: Sequence[Floats], target: int) -> Floats:
    out = np.zeros_like(vectors[0])
    for place in np.ndindex(out.shape):
        values = [vector[place] for vector in vectors]
        sign = 1 if np.sum(values, dtype=np.float32) > 0 else -1
        if values[target] * sign > 0:
            out[place] = sign * max(abs(value) for value in values if value * sign > 0)
    return out


def emr(members: Sequence[Weights], base: Weights, target: int) -> dict[str, Floats]:
    """Tau of every weight: unified, then brought to the mean size of the target's own vectors."""
    vectors = {name: [(member[name] - base[name]).numpy() for member in members] for name in base}
    merged = {name: unify(each, target) for name, each in vectors.items()}
    own = sum(float(abs(each[target]).mean()) for each in vectors.values())
    scale = own / sum(float(abs(each).mean()) for each in merged.values())
    return {name: each * np.float32(scale) for name, each in merged.items()}
