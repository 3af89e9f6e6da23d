"""What each model writes of itself: plain samples with the log-probs that transformers' `generate` saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from pa_middleware.scoring.errors import ScoringError
from pa_middleware.scoring.reading import Ids, Query
from pa_middleware.scoring.twin import twin

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class Written:
    """One text that a model wrote."""

    query: Query
    log_probs: NDArray[np.float32]
    """[T] nats: of each token, from the logits that it was drawn from."""


def write(
    model: PreTrainedModel, prompts: Sequence[Ids], *, samples: int, tokens: int, stops: Sequence[int], seed: int
) -> list[Written]:
    """Texts drawn from the model's own distribution, unfiltered: temperature 1, no top-k, no top-p, no penalty.

    Args:
        model: the user's; nothing about it or about torch's random state is changed.
        prompts: each [P] token ids.
        samples: texts of each prompt.
        tokens: most of a text.
        stops: ids that end one; they are part of it.
        seed: of the draws.

    Raises:
        ScoringError: the model cannot generate.
    """
    from transformers import GenerationConfig

    body: Any = twin(model)
    # Of its own it may have a temperature, a penalty or forced tokens; all of them would change what is drawn.
    body.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
    settings = GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=tokens,
        num_return_sequences=samples,
        eos_token_id=list(stops) or None,
        pad_token_id=stops[0] if stops else 0,
        return_dict_in_generate=True,
        output_logits=True,
    )
    device = model.device
    written: list[Written] = []
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.inference_mode():
        torch.manual_seed(seed)
        for prompt in prompts:
            given = torch.tensor([prompt], device=device)
            try:
                answer = body.generate(given, attention_mask=torch.ones_like(given), generation_config=settings)
            except (RuntimeError, ValueError, TypeError, AttributeError, LookupError) as error:
                raise ScoringError(f"{type(model).__name__} cannot generate: {error}") from error
            drawn = answer.sequences[:, len(prompt) :]
            rows = [row.float().log_softmax(-1).gather(1, drawn[:, [at]]) for at, row in enumerate(answer.logits)]
            for ids, values in zip(drawn.tolist(), torch.cat(rows, dim=1).cpu().numpy(), strict=True):
                length = next((at for at, token in enumerate(ids, start=1) if token in stops), len(ids))
                written.append(Written(Query((*prompt, *ids[:length]), len(prompt)), values[:length]))
    return written
