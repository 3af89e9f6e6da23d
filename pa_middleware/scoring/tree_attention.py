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
    _span: tuple[int, int] | None = None

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

    def within(self, window: int | None) -> tuple[int, int | None]:
        """The first row of the prefix that any row sees, and the window; None where it hides nothing."""
        if self._span is None:
            own = self.depths[-len(self.visible) :]
            self._span = int(own.min()), int(own.max())
        lowest, highest = self._span
        if window is None or self.prefix + highest < window:
            return 0, None
        return min(self.prefix, max(0, self.prefix + lowest - window + 1)), window


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
    _module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    _mask: torch.Tensor | None,
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
    start, window = tree_pass.within(sliding_window)
    key, value = key[:, :, start:], value[:, :, start:]
    heads, rows = key.shape[1], query.shape[2]
    folds = query.shape[1] // heads
    query = query.reshape(1, heads, folds * rows, query.shape[3])
    sinks = None if s_aux is None else s_aux.view(1, heads, folds, 1).expand(-1, -1, -1, rows).reshape(1, heads, -1)
    if softcap is not None or (sinks is not None and tree_pass.kind == "masked"):
        bias = tree_pass.bias(start, window, folds, torch.float32)
        out = _by_definition(query, key, value, bias=bias, scale=scale, softcap=softcap, sinks=sinks)
    elif tree_pass.kind == "masked":
        bias = tree_pass.bias(start, window, folds, query.dtype)
        out = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=scale)
    else:
        apart = tree_pass.prefix - start if window is None else 0
        bias = tree_pass.bias(start + apart, window, folds, query.dtype)
        out, total = _cascade(query, key, value, bias=bias, apart=apart, scale=scale)
        if sinks is not None:
            out = out * torch.sigmoid(total - sinks)[..., None].to(out.dtype)
    return out.reshape(1, heads * folds, rows, -1).transpose(1, 2), None


def _cascade(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, bias: torch.Tensor, apart: int, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention where the first `apart` keys are seen by all and `bias` is for the others.

    Returns:
        What is attended to [1, K, m, d], and the log-sum-exp of its weights [1, K, m].
    """
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    near, near_total = kernel(query, key[:, :, apart:], value[:, :, apart:], attn_mask=bias, scale=scale)
    if apart == 0:
        return near, near_total
    far, far_total = kernel(query, key[:, :, :apart], value[:, :, :apart], scale=scale)
    share = torch.sigmoid(far_total - near_total)[..., None].to(far.dtype)
    return torch.lerp(near, far, share), torch.logaddexp(far_total, near_total)


def _by_definition(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
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
        total = torch.logaddexp(total, sinks[..., None].float())
    return (weights - total).exp().to(value.dtype) @ value
