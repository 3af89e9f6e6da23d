"""Which way of reading a model is exact: found by comparing each with the plain pass, fastest first.

Nothing is known here by a model's name. A way that fails, or whose log-probs differ from one plain pass over the whole
sequence, is left out. Windows are narrowed for the check, so that a short probe crosses them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from pa_middleware.scoring import tree_attention
from pa_middleware.scoring.errors import ScoringError
from pa_middleware.scoring.network import Network
from pa_middleware.scoring.reading import Query, Reading
from pa_middleware.scoring.sequential_reading import SequentialReading, can_be_cropped
from pa_middleware.scoring.tree_reading import TreeReading
from pa_middleware.scoring.twin import twin

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Method = Literal["cascade", "masked", "crop", "copy", "anew"]
"""Ways of reading, fastest first: a tree of candidates in one pass by either tree attention; one candidate after
another over a cache that is cut back, or copied; no cache at all."""
METHODS: tuple[Method, ...] = ("cascade", "masked", "crop", "copy", "anew")

_TOLERANCE = {torch.float32: 2e-4, torch.float64: 2e-4, torch.float16: 0.25}
_COARSE = 1.0
"""Nats a token's log-prob may differ by, in bfloat16 and less. Wrong attention is off by several."""
_WINDOW = 8
_WINDOWS = ("sliding_window", "attention_chunk_size")
_FAILURES = (RuntimeError, TypeError, ValueError, AttributeError, LookupError, ScoringError, ImportError)


@dataclass(frozen=True, slots=True)
class Chosen:
    """How a model is read."""

    method: Method
    open: Callable[[], Reading]
    """Makes an empty reading."""
    noise: float
    """Root mean square of how far a token's log-prob differed from the plain pass; nats."""
    bytes_per_token: int
    """What is kept of a prompt for each of its tokens."""
    refused: dict[Method, str]
    """Why each faster way was left out."""


def tolerance(model: PreTrainedModel) -> float:
    """Nats that rounding may move a token's log-prob by, at most; a fault moves it further."""
    return _TOLERANCE.get(model.dtype, _COARSE)


def choose(
    model: PreTrainedModel, *, confidence: bool, repeatable: bool, methods: Sequence[Method] = METHODS
) -> Chosen:
    """Compare the ways with the plain pass and take the first that agrees.

    Args:
        model: the user's; nothing about it is changed.
        confidence: see `TreeReading`.
        repeatable: see `TreeReading`; ways that cannot are left out, except for `anew`.
        methods: the ways to try.

    Raises:
        ScoringError: no way agrees.
    """
    narrow = twin(model)
    _narrow(narrow)
    embeddings: Any = model.get_input_embeddings()
    first, then = _probe(len(embeddings.weight))
    try:
        expected = [_plain(narrow, query) for query in (*first, *then)]
    except _FAILURES as error:
        raise ScoringError(f"the model could not be run: {error}") from error
    broken = any(np.isnan(values).any() for values in expected)
    refused: dict[Method, str] = {}
    for method in methods:
        if broken and method != "anew":
            continue  # nothing to compare with; scoring will say what the model answers
        try:
            reading = _open(method, twin(narrow), confidence=confidence, repeatable=repeatable)()
            given = reading.answer(first)
            if isinstance(reading, TreeReading):
                _trust(reading, model)
            reading.read(then[0].ids[:-9])
            given += reading.answer(then)
        except _FAILURES as error:
            refused[method] = f"{type(error).__name__}: {error}"
            continue
        off = np.concatenate([_off(g[:, 0], e) for g, e in zip(given, expected, strict=True)])
        if not broken and not np.abs(off).max() <= tolerance(model):
            refused[method] = f"differs from the plain pass by {np.abs(off).max():.2g} nats a token"
            continue
        opened = _open(method, twin(model), confidence=confidence, repeatable=repeatable)
        noise = 0.0 if broken else float(np.sqrt(np.mean(off.astype(np.float64) ** 2)))
        return Chosen(method, opened, noise, 0 if broken else _bytes_per_token(opened(), first[0]), refused)
    reasons = "; ".join(f"{method}: {reason}" for method, reason in refused.items())
    raise ScoringError(f"{type(model).__name__} cannot be scored exactly in any way. {reasons}")


def _open(method: Method, model: PreTrainedModel, *, confidence: bool, repeatable: bool) -> Callable[[], Reading]:
    if rotates_by_length(model):
        if method != "anew":
            raise ScoringError("its rotary positions depend on how long the whole sequence is")
        # Its forward writes them into its modules: a body for each reading, that is for each thread.
        return lambda: SequentialReading(Network(twin(model)), method, confidence=confidence)
    if method == "cascade" or method == "masked":  # noqa: PLR1714 - mypy narrows this one
        if method == "cascade" and model.device.type != "cpu":
            raise ScoringError("its kernel is there for the CPU only")
        # The mask is the attention's own; an implementation that transformers has no mask for gets none.
        model.set_attn_implementation(tree_attention.register())
        network = Network(model)
        return lambda: TreeReading(network, method, confidence=confidence, repeatable=repeatable)
    network = Network(model)
    if repeatable and method != "anew":
        raise ScoringError("what it forwards together depends on what is kept")
    if method == "crop" and not can_be_cropped(model):
        raise ScoringError("a layer's cache is more than a row for each token")
    return lambda: SequentialReading(network, method, confidence=confidence)


def _off(given: NDArray[np.float32], expected: NDArray[np.float32]) -> NDArray[np.float32]:
    """How far log-probs are off; a token that is ruled out by both is not."""
    values: NDArray[np.float32] = np.subtract(given, expected, where=given != expected, out=np.zeros_like(given))
    return values


def _bytes_per_token(reading: Reading, query: Query) -> int:
    reading.read(query.ids, most=len(query.ids))
    return math.ceil(reading.nbytes / len(query.ids))


def rotates_by_length(model: PreTrainedModel) -> bool:
    """Keys of such a model (NTK by length, LongRoPE) are not those of a longer sequence with the same beginning."""
    kinds = [str(getattr(module, "rope_type", "")) for module in model.modules()]  # one, or one of each layer type
    return any("dynamic" in kind or "longrope" in kind for kind in kinds)


def _trust(reading: TreeReading, model: PreTrainedModel) -> None:
    """The tree attention was really used, and told of every window there is."""
    from transformers import DynamicCache

    done = reading.last_pass
    if done is None or not done.called:
        raise ScoringError("its layers do not attend through transformers' attention interface")
    kinds = {type(layer).__name__ for layer in DynamicCache(config=model.config).layers}
    if kinds - {"DynamicLayer"} and not done.windowed:
        raise ScoringError(f"its caches are {', '.join(sorted(kinds))}, and no layer told of a window")


def _narrow(model: PreTrainedModel) -> None:
    """Let every window be one that the probe crosses."""
    config = model.config.get_text_config()
    for holder in (config, *model.modules()):
        for name in _WINDOWS:
            window = getattr(holder, name, None)
            if isinstance(window, int) and window > _WINDOW:
                setattr(holder, name, _WINDOW)


def _probe(vocabulary: int) -> tuple[list[Query], list[Query]]:
    """Two steps of a conversation, as a guard asks for them: candidates that begin alike, then the next prompt."""
    random = np.random.default_rng(0)

    def draw(count: int) -> tuple[int, ...]:
        return tuple(random.integers(0, vocabulary, count).tolist())

    prompt, action = draw(24), draw(7)
    candidates = (draw(1), action[:3] + draw(5), action)
    following = prompt + action + draw(6)
    queries = [Query(prompt + candidate, len(prompt)) for candidate in candidates]
    return queries, [Query(following + draw(9), len(following)), Query(following + draw(4), len(following))]


@torch.inference_mode()
def _plain(model: PreTrainedModel, query: Query) -> NDArray[np.float32]:
    ids = torch.tensor([query.ids], device=model.device)
    rows = model(input_ids=ids, use_cache=False).logits[0, query.start - 1 : -1].float()
    values: NDArray[np.float32] = rows.log_softmax(-1).gather(1, ids[0, query.start :, None])[:, 0].cpu().numpy()
    return values
