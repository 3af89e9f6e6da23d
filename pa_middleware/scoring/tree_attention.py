"""Attention of the rows of a token tree over a prefix that all of them see: no row sees a sibling's branch.

Registered with transformers as an attention implementation, in two kinds that give the same numbers:

`cascade`: the prefix is attended without any mask, the tree apart under its small one, and the two are merged by their
log-sum-exp. Queries that share a key head are folded into one, so that no key is copied. CPU only.

`masked`: one attention over everything under one mask; any device.

Sliding windows are followed by position, sinks and soft-capping as the layer asks for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

Kind = Literal["cascade", "masked"]


@dataclass(slots=True)
class TreePass:
    """Which row sees which in one forward pass; the layers of the model take it from `running`."""

    kind: Kind
    prefix: int
    """P: rows that everybody sees, at positions 0 to P - 1."""
    visible: torch.Tensor
    """bool [n, Z]: which rows of the tree each of the pass's n rows sees; the n rows are the tree's last."""
    depths: torch.Tensor
    """int64 [Z]: the position of each row of the tree, counted from the prefix's end."""
    windowed: bool = False
    """Whether a layer told of a sliding window."""
    called: bool = False
    """Whether a layer asked for attention at all."""
    _biases: dict[Any, torch.Tensor] = field(default_factory=dict)

    def bias(self, start: int, window: int | None, folds: int, dtype: torch.dtype) -> torch.Tensor:
        """What is added to attention weights: 0 where seen, -inf elsewhere; [folds * n, prefix - start + Z].

        Args:
            start: the first row of the prefix that is attended; `prefix` for none of it.
            window: how many latest positions are seen, the own one included; None for all.
            folds: how often the n rows are repeated.
            dtype: of the answer.
        """
        key = (start, window, folds, dtype)
        if key not in self._biases:
            rows = len(self.visible)
            seen = torch.cat([self.visible.new_ones(rows, self.prefix - start), self.visible], dim=1)
            if window is not None:
                columns = torch.cat([torch.arange(start - self.prefix, 0, device=seen.device), self.depths])
                seen = seen & (columns > self.depths[-rows:, None] - window)
            bias = torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, -torch.inf)
            self._biases[key] = bias.repeat(folds, 1)
        return self._biases[key]

    def first_seen(self, window: int | None) -> int:
        """The first row of the prefix that any row sees."""
        if window is None:
            return 0
        lowest = int(self.depths[-len(self.visible) :].min())
        return min(self.prefix, max(0, self.prefix + lowest - window + 1))


_running: ContextVar[TreePass] = ContextVar("tree_pass")


@contextmanager
def running(tree_pass: TreePass) -> Iterator[None]:
    """Forward passes of this thread are this one."""
    token = _running.set(tree_pass)
    try:
        yield
    finally:
        _running.reset(token)


def register() -> str:
    """Make transformers know the implementation.

    Returns:
        Its name there.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(_NAME, _attention)
    return _NAME


_NAME = "pa_tree"


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,  # noqa: ARG001 - what is seen is the pass's to say
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention signature: query [1, H, n, d], keys and values [1, K, P + Z, d] -> [1, n, H, d]."""
    tree_pass = _running.get()
    tree_pass.called = True
    tree_pass.windowed |= sliding_window is not None
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    start = tree_pass.first_seen(sliding_window)
    # Where the window reaches past the beginning for every row, it hides nothing of the prefix.
    hides = sliding_window is not None and int(tree_pass.depths.max()) + tree_pass.prefix >= sliding_window
    window = sliding_window if hides else None
    heads, folds = key.shape[1], query.shape[1] // key.shape[1]
    rows = query.shape[2]
    folded = query.reshape(1, heads, folds * rows, query.shape[3])
    if softcap is not None or (s_aux is not None and tree_pass.kind == "masked"):
        bias = tree_pass.bias(start, window, folds, torch.float32)
        out = _by_definition(folded, key[:, :, start:], value[:, :, start:], bias, scale, softcap, _sinks(s_aux, heads))
    elif tree_pass.kind == "masked":
        bias = tree_pass.bias(start, window, folds, query.dtype)
        out = torch.nn.functional.scaled_dot_product_attention(
            folded, key[:, :, start:], value[:, :, start:], attn_mask=bias, scale=scale
        )
    else:
        out, weight = _cascade(tree_pass, folded, key[:, :, start:], value[:, :, start:], scale, window, start, folds)
        if s_aux is not None:
            sinks = _sinks(s_aux, heads)
            out = (
                out.view(1, heads, folds, rows, -1)
                * torch.sigmoid(weight.view(1, heads, folds, rows) - sinks)[..., None]
            ).to(query.dtype)
    return out.reshape(1, heads * folds, rows, -1).transpose(1, 2), None


def _cascade(
    tree_pass: TreePass,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    window: int | None,
    start: int,
    folds: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention of folded queries, and the log-sum-exp of its weights [1, K, folds * n]."""
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    prefix = tree_pass.prefix - start
    if window is not None or prefix == 0:
        bias = tree_pass.bias(start, window, folds, query.dtype)
        out, weight = kernel(query, key, value, attn_mask=bias, scale=scale)
        return out, weight
    bias = tree_pass.bias(tree_pass.prefix, None, folds, query.dtype)
    near, near_weight = kernel(query, key[:, :, prefix:], value[:, :, prefix:], attn_mask=bias, scale=scale)
    far, far_weight = kernel(query, key[:, :, :prefix], value[:, :, :prefix], scale=scale)
    share = torch.sigmoid(far_weight - near_weight)[..., None].to(far.dtype)
    return torch.lerp(near, far, share), torch.logaddexp(far_weight, near_weight)


def _by_definition(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bias: torch.Tensor,
    scale: float,
    softcap: float | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """softmax(cap(q k^T * scale) + bias, sinks beside) v, in float32; for what no fused kernel does."""
    weights = (query @ key.transpose(2, 3)).float() * scale
    if softcap is not None:
        weights = torch.tanh(weights / softcap) * softcap
    weights = weights + bias
    total = weights.logsumexp(-1, keepdim=True)
    if sinks is not None:
        heads, folds = sinks.shape[1:3]
        rows = weights.shape[2] // folds
        beside = sinks.expand(1, heads, folds, rows).reshape(1, heads, folds * rows, 1)
        total = torch.logaddexp(total, beside.float())
    return (weights - total).exp().to(value.dtype) @ value


def _sinks(s_aux: torch.Tensor | None, heads: int) -> torch.Tensor | None:
    """[H] -> [1, K, H / K, 1]."""
    return None if s_aux is None else s_aux.view(1, heads, -1, 1)
