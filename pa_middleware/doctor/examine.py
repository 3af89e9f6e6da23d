"""All checks of a pair, one after the other, as far as each allows the next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pa_middleware.doctor import reading, signal, tokens
from pa_middleware.doctor.findings import Diagnosis, Finding, Verdict, not_checked
from pa_middleware.doctor.lineage import lineage
from pa_middleware.doctor.sample import GENERIC, LONGEST, Sample, usable
from pa_middleware.doctor.trial import tried
from pa_middleware.scoring.checkpoints import load
from pa_middleware.scoring.errors import ScoringError
from pa_middleware.scoring.pair import ModelPair
from pa_middleware.scoring.scorer import Step
from pa_middleware.scoring.turn_ends import turn_ends

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CHECKS = (
    "vocabulary",
    "template",
    "lineage",
    "reading",
    "steps",
    "stability",
    "generation",
    "divergence",
    "noise",
    "own texts",
)
"""Every check, in order; each is a finding of every diagnosis."""


def examine(
    policy: str | Path,
    reference: str | Path,
    *,
    steps: Sequence[Step] = GENERIC,
    samples: int = 8,
    length: int = 32,
    seed: int = 0,
    dtype: torch.dtype | str = "auto",
    device: torch.device | str = "cpu",
) -> Diagnosis:
    """Load two checkpoints and find out whether they can be used as a pair.

    Args:
        policy: the RL-trained model: a folder, or a name on a model hub.
        reference: the model it started from.
        steps: turns to try the pair on; by default a few generic ones. Ones of the user's agent say more.
        samples: texts that each model writes for each step's prompt; at least 2.
        length: most tokens of each text.
        seed: of the texts.
        dtype: of both models; `auto` keeps each checkpoint's own.
        device: where both go.

    Raises:
        PairError: a checkpoint lacks weights.
        OSError: a checkpoint cannot be found or read.
        ValueError: a setting outside what is allowed.
    """
    for name, given, least in (("samples", samples, 2), ("length", length, 1), ("seed", seed, 0)):
        if given < least:
            raise ValueError(f"{name} is {given!r}; allowed: at least {least}")
    ours, tokenizer = load(policy, dtype=dtype, device=device)
    theirs, their_tokenizer = load(reference, dtype=dtype, device=device)
    found = [
        tokens.vocabulary(ours, theirs, tokenizer, their_tokenizer),
        tokens.template(tokenizer, their_tokenizer),
        lineage(ours, theirs),
    ]
    if any(finding.verdict == "failed" for finding in found[:2]):
        found += _left(found, "The models do not read the same ids.")
        return Diagnosis(str(policy), str(reference), tuple(found))
    try:
        for finding in _checked(ours, theirs, tokenizer, steps, samples=samples, length=length, seed=seed):
            found.append(finding)
    except ScoringError as error:
        found.append(
            Finding(
                check=CHECKS[len(found)],
                verdict="failed",
                measured=str(error),
                allowed="both models can be read and can write",
                advice="A newer transformers, or another attn_implementation, may help.",
            )
        )
    found += _left(found, "A check before it could not be made.")
    return Diagnosis(str(policy), str(reference), tuple(found))


def _checked(
    policy: PreTrainedModel,
    reference: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    steps: Sequence[Step],
    *,
    samples: int,
    length: int,
    seed: int,
) -> Iterator[Finding]:
    """The findings from `reading` on, in the order of `CHECKS`."""
    pair = ModelPair(policy, reference, tokenizer)
    yield reading.self_check(pair)
    sample = usable(pair, steps)
    yield _steps(sample)
    if not sample.steps:
        return
    yield reading.stability(pair, sample)
    prompts = list(dict.fromkeys(step.prompt for step in sample.fitted))
    trial = tried(
        pair,
        prompts,
        samples=samples,
        tokens=length,
        stops=sorted(turn_ends(pair.policy.model, pair.tokenizer)),
        seed=seed,
    )
    yield reading.generation(pair, trial)
    yield signal.distance(pair, sample, trial)
    yield signal.spread(pair, trial)
    yield signal.own_texts(pair, trial)


def _steps(sample: Sample) -> Finding:
    given, read = len(sample.steps) + len(sample.refused), len(sample.steps)
    verdict: Verdict = "failed" if not read else "warning" if sample.refused else "ok"
    why = f" First reason: {sample.refused[0]}" if sample.refused else ""
    return Finding(
        check="steps",
        verdict=verdict,
        measured=f"{read} of {given} steps can be rendered and read.{why}",
        allowed=f"all of them, within {LONGEST} tokens",
        advice="Try the pair on steps of your own agent." if sample.refused else "",
        numbers={"steps": read, "refused": len(sample.refused)},
    )


def _left(found: Sequence[Finding], why: str) -> list[Finding]:
    return [not_checked(check, why) for check in CHECKS[len(found) :]]
