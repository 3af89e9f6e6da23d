"""One causal language model: log-probs of given continuations of a prompt.

Knows token ids only: no message, no pair, no score. How it is read is chosen by `self_check`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pa_middleware.scoring.errors import ContextLengthError, ScoringError
from pa_middleware.scoring.reading import Query, Reading
from pa_middleware.scoring.self_check import METHODS, Chosen, Method, choose

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class CausalLM:
    """A Hugging Face causal language model that scores. Threads may share it.

    Args:
        model: in any dtype, on any device; put into evaluation mode. Its weights must not change while readings of it
            are kept.
        confidence: have the statistics of `readout` behind each log-prob.
        repeatable: give the same bits for the same question, whatever was read before.
        methods: ways of reading that may be chosen.

    Raises:
        ScoringError: no way of reading the model agrees with a plain pass over the whole sequence.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        confidence: bool = False,
        repeatable: bool = False,
        methods: Sequence[Method] = METHODS,
    ) -> None:
        self.model = model
        model.train(False)
        self.chosen: Chosen = choose(model, confidence=confidence, repeatable=repeatable, methods=methods)

    @property
    def max_length(self) -> int | None:
        """Tokens the model can read at once; None if its config does not say."""
        return context_length(self.model)

    @property
    def vocabulary_size(self) -> int:
        """Rows of the input embedding."""
        embeddings: Any = self.model.get_input_embeddings()
        return int(embeddings.weight.shape[0])

    def open(self) -> Reading:
        """A reading of a conversation that nothing was read of."""
        return self.chosen.open()

    def log_probs(self, prompt: Sequence[int], continuations: Sequence[Sequence[int]]) -> list[NDArray[np.float32]]:
        """Log-probs of each token of each continuation, given the prompt and the tokens before it.

        Args:
            prompt: [P] token ids, P >= 1.
            continuations: N sequences of [T_n] token ids, T_n >= 1.

        Returns:
            N float32 arrays of shape [T_n], nats, each at most 0. Accumulated in float32 whatever the model's dtype.

        Raises:
            ValueError: an empty prompt or continuation, or an id outside the vocabulary.
            ContextLengthError: more tokens than the model can read.
            ScoringError: the model answered NaN or infinity, or failed (out of memory, say).

        Naive equivalent: `log_softmax(model(prompt + continuation).logits.float())` gathered at the continuation.
        """
        queries = [Query((*prompt, *continuation), len(prompt)) for continuation in continuations]
        return [values[:, 0] for values in self.answer(queries, self.open())]

    def answer(
        self, queries: Sequence[Query], reading: Reading, *, most: int | None = None
    ) -> list[NDArray[np.float32]]:
        """For each query [T_n, S]: the log-probs of `log_probs`, then the statistics of `readout` if asked for.

        Args:
            queries: any number.
            reading: of this model; not to be used again after an error.
            most: see `Reading`.

        Raises:
            As `log_probs`.
        """
        self.check(queries)
        if not queries:
            return []
        try:
            answers = reading.answer(queries, most=most)
        except (RuntimeError, LookupError) as error:
            raise ScoringError(f"the model could not be run: {error}") from error
        for values in answers:
            if not np.isfinite(values[:, 0]).all():
                raise ScoringError("the model answered a log-prob that is not finite")
            # A probability of one may round to slightly more.
            np.minimum(values[:, 0], np.float32(0.0), out=values[:, 0])
        return answers

    def check(self, queries: Sequence[Query]) -> None:
        """Raise what `log_probs` raises of tokens that cannot be read."""
        if not all(0 < query.start < len(query.ids) for query in queries):
            raise ValueError("prompt and continuations need at least one token id each")
        ids = set(chain.from_iterable(query.ids for query in queries))
        lowest, highest = min(ids, default=0), max(ids, default=0)
        if lowest < 0 or highest >= self.vocabulary_size:
            raise ValueError(
                f"token ids run from {lowest} to {highest}; the model knows 0 to {self.vocabulary_size - 1}"
            )
        length = max((len(query.ids) for query in queries), default=0)
        if self.max_length is not None and length > self.max_length:
            raise ContextLengthError(f"{length} tokens are to be read; the model can read {self.max_length}")


def context_length(model: PreTrainedModel) -> int | None:
    """Tokens that a model can read at once; None if its config does not say."""
    length = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return int(length) if length else None
