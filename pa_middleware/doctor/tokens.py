"""Do both models read the same ids: vocabulary, embedding rows, special tokens, chat template."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pa_middleware.doctor.findings import Finding, Verdict
from pa_middleware.scoring.checkpoints import check_same_vocabulary
from pa_middleware.scoring.errors import PairError
from pa_middleware.scoring.rendering import Renderer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_SAMPLE = [
    {"role": "user", "content": 'Where is the café?  Look at 3 maps,\n\nplease: "now".'},
    {"role": "assistant", "content": "On the\tsecond one."},
]


def vocabulary(
    policy: PreTrainedModel,
    reference: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    theirs: PreTrainedTokenizerBase,
) -> Finding:
    """Every token has one id, and both models have an embedding row for it.

    Special tokens may be used differently (a base model often ends texts with another one): only the policy's are
    written. That they differ is told.
    """
    embeddings: tuple[Any, Any] = policy.get_input_embeddings(), reference.get_input_embeddings()
    rows = [int(each.weight.shape[0]) for each in embeddings]
    allowed = "one id for every token, and an embedding row for every id in both models"
    numbers = {"tokens": len(tokenizer), "policy_rows": rows[0], "reference_rows": rows[1]}
    try:
        check_same_vocabulary(tokenizer, theirs)
    except PairError as error:
        return Finding(
            check="vocabulary",
            verdict="failed",
            measured=str(error),
            allowed=allowed,
            advice="Use the model that the policy was trained from.",
            numbers=numbers,
        )
    if min(rows) < len(tokenizer):
        return Finding(
            check="vocabulary",
            verdict="failed",
            measured=f"{len(tokenizer)} tokens, and {rows[0]} and {rows[1]} embedding rows (policy, reference).",
            allowed=allowed,
            advice="Use the tokenizer that came with the models.",
            numbers=numbers,
        )
    ours, other = tokenizer.special_tokens_map, theirs.special_tokens_map
    differing = sorted(name for name in ours.keys() | other.keys() if ours.get(name) != other.get(name))
    special = f"differ in {', '.join(differing)}: the policy's are used" if differing else "are the same"
    return Finding(
        check="vocabulary",
        verdict="ok",
        measured=f"{len(tokenizer)} tokens with the same ids; {rows[0]} and {rows[1]} rows. Special tokens {special}.",
        allowed=allowed,
        numbers=numbers,
    )


def template(tokenizer: PreTrainedTokenizerBase, theirs: PreTrainedTokenizerBase) -> Finding:
    """The same text becomes the same ids in both tokenizers, and the chat templates do not contradict each other.

    Prompts are always written with the policy's template. A base model that has none is what it is compared with as a
    rule; a reference with another template was trained on another format, and the ratio will measure that too.
    """
    allowed = "equal templates, or none of the reference's; equal ids for the rendered sample"
    try:
        Renderer(tokenizer)
    except PairError as error:
        return Finding(
            check="template",
            verdict="failed",
            measured=f"The policy's template cannot be used: {error}",
            allowed=allowed,
            advice="Set tokenizer.chat_template to the one the policy was trained with, and save it.",
        )
    text = str(tokenizer.apply_chat_template(_SAMPLE, tokenize=False))
    ids, other = (list(each(text, add_special_tokens=False)["input_ids"]) for each in (tokenizer, theirs))
    verdict: Verdict = "ok"
    advice = ""
    if not theirs.chat_template:
        measured = "The reference has no template, as base models do; the policy's is used for both."
    elif theirs.chat_template == tokenizer.chat_template:
        measured = "The templates are equal."
    else:
        verdict, measured = "warning", "The templates differ; the policy's is used for both."
        advice = "See whether divergence is high: then the scores tell formats apart, not actions."
    if ids != other:
        verdict, measured = "failed", f"{measured} The rendered sample has {len(ids)} and {len(other)} ids that differ."
        advice = "Make the tokenizers split text alike (normalizer, pre-tokenizer, merges)."
    else:
        measured = f"{measured} The rendered sample has the same {len(ids)} ids in both."
    return Finding(check="template", verdict=verdict, measured=measured, allowed=allowed, advice=advice)
