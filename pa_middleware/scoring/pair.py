"""Policy and reference: two checkpoints with one tokenizer, and the scorer they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from langchain_core.messages import AIMessage
from numpy.typing import NDArray

from pa_middleware.scoring.advantage import Order, TokenAggregation, action_score, log_ratio
from pa_middleware.scoring.causal_lm import CausalLM
from pa_middleware.scoring.errors import ContextLengthError, PairError
from pa_middleware.scoring.rendering import RenderedAction, RenderedStep, Renderer
from pa_middleware.scoring.scorer import CallScore, CandidateScore, Step, StepScore

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Floats = NDArray[np.float32]


class ModelPair:
    """Scores actions with the progress advantage of a policy over its reference. A `Scorer`.

    Args:
        policy: the RL-trained model.
        reference: the model RL started from, or was held to.
        tokenizer: the policy's, with its chat template; both models read the same ids.
        beta: the KL weight of the RL training; 1.0 where there was none. Scales scores, moves no ranking.
        aggregation: how token log-ratios become a score. `sum` is the advantage of the whole action.
        order: see `advantage.action_score`.
        end_of_turn: score the token that ends the turn too.
        template_kwargs: more arguments of the chat template, such as `enable_thinking=False`; the ones the policy had.
        max_length: longest prompt plus action, in tokens; by default what both models can read.
        overflow: what to do beyond it. `error` raises; `truncate` leaves out the oldest prompt tokens and marks the
            score `truncated=True`.
        name: `policy` and `reference` as traces should call them.

    Raises:
        PairError: the models cannot be scored with this tokenizer.
        ValueError: a setting outside what is allowed.
    """

    def __init__(
        self,
        policy: PreTrainedModel,
        reference: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        beta: float = 1.0,
        aggregation: TokenAggregation = "sum",
        order: Order = "ratio_then_aggregate",
        end_of_turn: bool = True,
        template_kwargs: Mapping[str, Any] | None = None,
        max_length: int | None = None,
        overflow: Literal["error", "truncate"] = "error",
        name: tuple[str, str] | None = None,
    ) -> None:
        if overflow not in ("error", "truncate"):
            raise ValueError(f"overflow is {overflow!r}; allowed: 'error', 'truncate'")
        if max_length is not None and max_length < 2:
            raise ValueError(
                f"max_length is {max_length!r}; allowed: at least 2 tokens, or None for what the models read"
            )
        action_score([-1.0], [-1.0], beta=beta, aggregation=aggregation, order=order)  # refuses unknown settings now
        self.policy = CausalLM(policy)
        self.reference = CausalLM(reference)
        self.tokenizer = tokenizer
        self.beta = beta
        self.aggregation = aggregation
        self.order = order
        self.overflow = overflow
        self.policy_name, self.reference_name = name or (_name(policy, "policy"), _name(reference, "reference"))
        for role, model in (("policy", self.policy), ("reference", self.reference)):
            if model.vocabulary_size < len(tokenizer):
                raise PairError(
                    f"the {role} knows {model.vocabulary_size} tokens and the tokenizer writes {len(tokenizer)}; "
                    "they do not belong together"
                )
        limits = [limit for limit in (max_length, self.policy.max_length, self.reference.max_length) if limit]
        self.max_length = min(limits, default=None)
        self.renderer = Renderer(tokenizer, end_of_turn=end_of_turn, template_kwargs=template_kwargs)

    @classmethod
    def from_pretrained(
        cls,
        policy: str | Path,
        reference: str | Path,
        *,
        policy_revision: str = "main",
        reference_revision: str = "main",
        dtype: torch.dtype | str = "auto",
        device: torch.device | str = "cpu",
        **settings: Any,
    ) -> ModelPair:
        """A pair from two checkpoints: folders, or names on a model hub.

        Weights load from safetensors only and no code from a checkpoint runs.

        Args:
            policy: the RL-trained model, with tokenizer and chat template.
            reference: the model it started from, with its tokenizer.
            policy_revision: commit, tag or branch on the hub.
            reference_revision: the same for the reference.
            dtype: of both models; `auto` keeps each checkpoint's own.
            device: where both models go.
            settings: everything else `ModelPair` takes.

        Raises:
            PairError: the tokenizers give different ids, or a checkpoint lacks weights.
            OSError: a checkpoint cannot be found or read.
        """
        from transformers import AutoModelForCausalLM, AutoTokenizer

        def load(path: str | Path, revision: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
            tokenizer = AutoTokenizer.from_pretrained(path, revision=revision, trust_remote_code=False)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                path,
                revision=revision,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
            model, report = loaded
            if missing := sorted(report["missing_keys"]):
                raise PairError(f"{path} lacks {len(missing)} weights, first {missing[0]!r}; they would be random")
            return model.to(device), tokenizer

        policy_model, tokenizer = load(policy, policy_revision)
        reference_model, reference_tokenizer = load(reference, reference_revision)
        _check_same_vocabulary(tokenizer, reference_tokenizer)
        settings.setdefault("name", (str(policy), str(reference)))
        return cls(policy_model, reference_model, tokenizer, **settings)

    def score(self, steps: Sequence[Step]) -> list[StepScore]:
        """Progress advantage of every candidate of every step.

        Raises:
            UnscorableActionError: a candidate is empty, malformed or no AIMessage.
            RenderingError: the history cannot be turned into a prompt.
            ContextLengthError: too long, and `overflow` is `error`.
            ScoringError: a model answered something that is not finite.
        """
        return [self._score(self.renderer.render(step), step) for step in steps]

    def _score(self, rendered: RenderedStep, step: Step) -> StepScore:
        prompt, truncated = self._fit(rendered)
        distinct = list(dict.fromkeys(action.ids for action in rendered.actions))
        policy = dict(zip(distinct, self.policy.log_probs(prompt, distinct), strict=True))
        reference = dict(zip(distinct, self.reference.log_probs(prompt, distinct), strict=True))
        return StepScore(
            tuple(
                self._candidate(action, candidate, policy[action.ids], reference[action.ids], truncated)
                for action, candidate in zip(rendered.actions, step.candidates, strict=True)
            )
        )

    def _candidate(
        self, action: RenderedAction, message: AIMessage, policy: Floats, reference: Floats, truncated: bool
    ) -> CandidateScore:
        calls = zip(message.tool_calls, action.calls, strict=True)
        return CandidateScore(
            score=self._aggregate(policy, reference),
            policy_log_prob=float(policy.sum(dtype=np.float64)),
            reference_log_prob=float(reference.sum(dtype=np.float64)),
            token_log_ratios=tuple(log_ratio(policy, reference).tolist()),
            calls=tuple(
                CallScore(call["id"], call["name"], self._aggregate(policy[a:z], reference[a:z]), token_count=z - a)
                for call, (a, z) in calls
            ),
            truncated=truncated,
        )

    def _aggregate(self, policy: Floats, reference: Floats) -> float:
        return action_score(policy, reference, beta=self.beta, aggregation=self.aggregation, order=self.order)

    def _fit(self, rendered: RenderedStep) -> tuple[tuple[int, ...], bool]:
        """The prompt as both models will read it, and whether its oldest tokens had to go."""
        longest = max(len(action.ids) for action in rendered.actions)
        if self.max_length is None or len(rendered.prompt) + longest <= self.max_length:
            return rendered.prompt, False
        room = self.max_length - longest
        if self.overflow == "error" or room < 1:
            raise ContextLengthError(
                f"the prompt has {len(rendered.prompt)} tokens and the action {longest}; the pair can read "
                f"{self.max_length}. Shorten what the agent is shown (and tell the guard with history=...), or set "
                "overflow='truncate' if the policy's own engine cuts the oldest tokens off too"
            )
        return rendered.prompt[-room:], True


def _name(model: PreTrainedModel, fallback: str) -> str:
    return str(getattr(model.config, "name_or_path", "") or fallback)


def _check_same_vocabulary(policy: PreTrainedTokenizerBase, reference: PreTrainedTokenizerBase) -> None:
    ours, theirs = policy.get_vocab(), reference.get_vocab()
    differing = sorted(token for token in ours.keys() | theirs.keys() if ours.get(token) != theirs.get(token))
    if differing:
        token = differing[0]
        raise PairError(
            f"the tokenizers differ in {len(differing)} tokens, first {token!r}: id {ours.get(token)} in the policy, "
            f"{theirs.get(token)} in the reference. A pair shares one tokenizer: did the policy come from this model?"
        )
