"""What is read off a row of logits: the log-prob of the token that followed, and how sure the model was of anything.

A bounded number of rows at a time: memory is O(rows x V) with the rows bounded, whatever is scored.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

ROWS = 64
"""Rows whose logits exist at once."""
TOP = 20
"""How many of the likeliest tokens `top_mean` is taken over, as in the paper's official code."""
STATISTICS = ("entropy", "top_mean", "self_certainty")


def read_out(
    logits_of: Callable[[torch.Tensor], torch.Tensor],
    hidden: torch.Tensor,
    source: torch.Tensor,
    targets: torch.Tensor,
    *,
    confidence: bool = False,
) -> torch.Tensor:
    """Log-probs of tokens, and on demand the statistics of the rows they come from.

    Args:
        logits_of: hidden rows [r, D] -> logits [r, V], r <= ROWS.
        hidden: [R, D], the rows to compute logits of, each once.
        source: int64 [T], ascending: the row that predicts each token.
        targets: int64 [T], the tokens.
        confidence: read the statistics off too.

    Returns:
        float32 [T, 1], or [T, 4] with `STATISTICS` behind the log-prob. Accumulated in float32. Nats: `entropy` of the
        row; `top_mean`, the mean log-prob of its TOP likeliest tokens; `self_certainty`, KL(uniform || row) (arXiv
        2502.18581). Tokens that the model rules out count in none of them.

    Naive equivalent: `log_softmax(logits.float())` of all rows, gathered at the targets.
    """
    width = 1 + len(STATISTICS) * confidence
    result = torch.empty(len(targets), width, dtype=torch.float32, device=hidden.device)
    for start in range(0, len(hidden), ROWS):
        block = logits_of(hidden[start : start + ROWS]).float()
        first, past = torch.searchsorted(source, torch.tensor([start, start + len(block)], device=source.device))
        rows = source[first:past] - start
        total = block.logsumexp(dim=1)
        result[first:past, 0] = block[rows, targets[first:past]] - total[rows]
        if confidence:
            result[first:past, 1:] = _statistics(block, total)[rows]
    return result


def _statistics(logits: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
    """[r, V] logits and their log-sum-exp [r] -> [r, 3] in the order of STATISTICS."""
    top = _mean(logits.topk(min(TOP, logits.shape[1]), dim=1).values) - total
    possible = logits.isfinite().sum(dim=1).float()
    certainty = total - _mean(logits) - possible.log()
    log_probs = logits.sub_(total[:, None])
    entropy = -(log_probs.exp() * log_probs.nan_to_num(neginf=0.0)).sum(dim=1)
    return torch.stack([entropy, top, certainty], dim=1)


def _mean(logits: torch.Tensor) -> torch.Tensor:
    """Mean of each row over the tokens that are possible: a model may rule some out with -inf."""
    return logits.nan_to_num(neginf=0.0).sum(dim=1) / logits.isfinite().sum(dim=1)
