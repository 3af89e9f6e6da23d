"""Which scorer this is, as names and texts: where they are equal, a threshold of one scorer holds for the other.

A threshold is calibrated on the scores of one scorer. With other weights, another template or another aggregation the
same number means something else, so a guard compares fingerprints and refuses. Where a model lies and what it is called
plays no part.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from pa_middleware.scoring.errors import ScoringError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from pa_middleware.scoring.pair import ModelPair


@runtime_checkable
class Identified(Protocol):
    """A scorer that can say which one it is. Need not be implemented; calibrated thresholds need it."""

    def fingerprint(self) -> Mapping[str, str]:
        """Names of parts and what each of them is, at least one; the same whenever the scores are the same.

        May be called from several threads, and should be quick after the first time.
        """
        ...


def fingerprint_of(scorer: object) -> Mapping[str, str] | None:
    """A scorer's fingerprint; None if it has none to give.

    Raises:
        ScoringError: what it answers is no mapping from names to texts, or empty.
    """
    if not isinstance(scorer, Identified):
        return None
    answer: object = scorer.fingerprint() if callable(scorer.fingerprint) else scorer.fingerprint
    if isinstance(answer, Mapping) and answer:
        parts = dict(answer)
        if all(isinstance(name, str) and isinstance(part, str) for name, part in parts.items()):
            return parts
    raise ScoringError(
        f"the fingerprint of {type(scorer).__name__} is {answer!r:.100}; needed: a method fingerprint() that answers a "
        "mapping from names to texts, not empty"
    )


def differences(ours: Mapping[str, str], theirs: Mapping[str, str]) -> list[str]:
    """Names of the parts in which two fingerprints differ, or that only one of them has; in order of the alphabet."""
    return sorted(part for part in ours.keys() | theirs.keys() if ours.get(part) != theirs.get(part))


def pair_fingerprint(pair: ModelPair) -> dict[str, str]:
    """The fingerprint of a pair.

    `policy` and `reference` are hashes of the weights as `weights_hash` reads them, with what it does not see;
    `tokenizer` and `template` hashes of what makes messages into ids; the others are settings as they are. A setting
    that can change no score is left out.

    Raises:
        ScoringError: weights are not in memory.
    """
    from pa_middleware.scoring.weights import weights_hash

    policy, reference = pair.policy.model, pair.reference.model
    dtypes = dict.fromkeys(str(model.dtype).removeprefix("torch.") for model in (policy, reference))
    parts = {
        "policy": weights_hash(policy),
        "reference": weights_hash(reference),
        "tokenizer": tokenizer_hash(pair.tokenizer),
        "template": template_hash(pair.tokenizer, pair.template_kwargs),
        "aggregation": pair.aggregation,
        "order": pair.order,
        "beta": repr(float(pair.beta)),
        "end_of_turn": str(pair.end_of_turn).lower(),
        "dtype": "/".join(dtypes),
    }
    if pair.overflow == "truncate" and pair.max_length is not None:
        parts |= {"overflow": pair.overflow, "max_length": str(pair.max_length)}
    return parts


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash of what decides about ids: vocabulary, merges, added and special tokens; 32 hex digits.

    How the tokenizer was last told to pad or truncate plays no part, nor does its padding token.
    """
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    whole = json.loads(backend.to_str()) if backend is not None else {}
    for passing in ("padding", "truncation"):
        whole.pop(passing, None)
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items() if name != "pad_token"}
    added = {index: str(token) for index, token in tokenizer.added_tokens_decoder.items()}
    return _hash([tokenizer.get_vocab(), added, special, whole])


def template_hash(tokenizer: PreTrainedTokenizerBase, template_kwargs: Mapping[str, Any]) -> str:
    """Hash of the chat template and of the arguments it is given; 32 hex digits."""
    return _hash([tokenizer.chat_template, dict(template_kwargs)])


def _hash(value: object) -> str:
    text = json.dumps(value, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
