"""A merged reference, weight by weight: pi_alpha = pi_base + alpha * tau (paper, section 4)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from pa_middleware.merging.recipe import DENSITY, Recipe, checked_alpha
from pa_middleware.merging.sources import Source, check_same_names
from pa_middleware.merging.task_vectors import aligned, dropped, elected, trimmed, unified

if TYPE_CHECKING:
    import torch


class Merge:
    """Reads one weight of every model, answers the merged one, keeps none.

    The members are policy, then the reference if there is an anchor, then the extra policies; the base is the anchor,
    else the reference. Arithmetic is in float32; tau is rounded to the reference's dtype before it is scaled, as in the
    official code, and names, shapes and dtypes of the result are the reference's. Whole numbers are the base's.

    Two things differ from the official code. What `dare` keeps of a weight is drawn from a generator of its own, seeded
    with the seed and the weight's name: the same in whatever order and files weights are stored; the official code
    draws through all weights in turn. And a head tied to the embedding is the embedding, while there it is a second
    weight that is merged over the first.

    Args:
        policy: the RL-trained model.
        reference: what it started from.
        recipe: method, density, seed.
        extras: further policies of the same reference.
        anchor: an earlier model that policy and reference both come from; the reference is then a member, and the one
            that `emr` reconstructs.

    Raises:
        PairError: weights of one model are not in the other, or their shapes do not fit.
        ValueError: extras or an anchor with `linear`, which reads neither.
    """

    def __init__(
        self,
        policy: Source,
        reference: Source,
        recipe: Recipe,
        *,
        extras: Sequence[Source] = (),
        anchor: Source | None = None,
    ) -> None:
        if recipe.method == "linear" and (extras or anchor is not None):
            raise ValueError(
                "'linear' reads a policy and a reference alone; extra policies or an anchor need another method"
            )
        self.recipe = recipe
        self.reference = reference
        self.base = reference if anchor is None else anchor
        self.members = [policy, *([] if anchor is None else [reference]), *extras]
        for other in {id(source): source for source in (self.base, *self.members)}.values():
            check_same_names(reference, other)
        self._target = 0 if anchor is None else 1
        self._check_shapes()

    @property
    def names(self) -> Sequence[str]:
        """The reference's weights."""
        return self.reference.names

    def weight(self, name: str, alpha: float, tau: torch.Tensor | None = None) -> torch.Tensor:
        """One merged weight, on the CPU.

        At alpha 0 it is the base's to the bit, at alpha 1 with `linear` the policy's.

        Args:
            name: one of `names`.
            alpha: in [0, 1].
            tau: what `vector` answered for it; by default it is worked out.

        Raises:
            ValueError: alpha is outside.
            PairError: the shapes do not fit.
        """
        alpha = checked_alpha(alpha)
        shape, dtype = self.reference.form(name)
        base = aligned(self.base.read(name), shape, name)
        if alpha == 0 or not self.has_vector(name):
            return base.to(dtype)
        if self.recipe.method == "linear":
            policy = aligned(self.members[0].read(name), shape, name)
            if alpha == 1:
                return policy.to(dtype)
            return (policy.float() * alpha + base.float() * (1 - alpha)).to(dtype)
        if tau is None:
            tau = self.vector(name)
        return (base.float() + alpha * tau.float()).to(dtype)

    def vector(self, name: str) -> torch.Tensor:
        """Tau of one weight, in the reference's dtype; not for `linear`, which needs none."""
        vectors = self._task_vectors(name)
        density = DENSITY if self.recipe.density is None else self.recipe.density
        if self.recipe.method == "ties":
            tau = elected([trimmed(vector, density) for vector in vectors], mean=True)
        elif self.recipe.method == "emr":
            tau = unified(vectors, self._target) * self.emr_scale
        else:
            generator = self.generator(name)
            kept = [dropped(vector, density, generator) for vector in vectors]
            tau = sum(kept[1:], kept[0]) if self.recipe.method == "dare_linear" else elected(kept, mean=False)
        return tau.to(self.reference.form(name)[1])

    @cached_property
    def emr_scale(self) -> float:
        """What brings the unified vector to the mean size of the target's own, over all weights; 1 with one member.

        Reads every weight, the first time.
        """
        if len(self.members) == 1:
            return 1.0
        own = merged = 0.0
        for name in filter(self.has_vector, self.names):
            vectors = self._task_vectors(name)
            own += float(vectors[self._target].abs().mean())
            merged += float(unified(vectors, self._target).abs().mean())
        return own / merged if merged > 0 else 1.0

    def generator(self, name: str) -> torch.Generator:
        """Draws what `dare` keeps of a weight, of one member after another."""
        import torch

        digest = hashlib.sha256(f"{self.recipe.seed or 0}/{name}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:8]) >> 1)

    def has_vector(self, name: str) -> bool:
        """Whether a weight has a task vector: it is no whole number."""
        return self.base.form(name)[1].is_floating_point

    def _check_shapes(self) -> None:
        import torch

        for name in self.names:
            shape = self.reference.form(name)[0]
            for source in (self.base, *self.members):
                aligned(torch.empty(source.form(name)[0], device="meta"), shape, name)

    def _task_vectors(self, name: str) -> list[torch.Tensor]:
        shape, _ = self.reference.form(name)
        base = aligned(self.base.read(name), shape, name).float()
        return [aligned(member.read(name), shape, name).float() - base for member in self.members]
