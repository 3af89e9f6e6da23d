"""Policy and reference: two checkpoints with one tokenizer, and the scorer they make."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_core.messages import BaseMessage

from pa_middleware.scoring.advantage import Order, TokenAggregation, action_score
from pa_middleware.scoring.background import Background
from pa_middleware.scoring.batches import TOKENS, portions
from pa_middleware.scoring.borrowing import borrowed, driven
from pa_middleware.scoring.causal_lm import CausalLM
from pa_middleware.scoring.checkpoints import check_same_vocabulary, load
from pa_middleware.scoring.composing import Composer, Floats
from pa_middleware.scoring.conversations import Conversations, Readings
from pa_middleware.scoring.errors import PairError
from pa_middleware.scoring.exact import ExactIds
from pa_middleware.scoring.fingerprint import pair_fingerprint
from pa_middleware.scoring.fitting import FittedStep, Overflow, fit
from pa_middleware.scoring.model_keys import model_key
from pa_middleware.scoring.overlap import Overlap
from pa_middleware.scoring.reading import Query
from pa_middleware.scoring.rendering import Renderer
from pa_middleware.scoring.scorer import Step, StepScore, Tool
from pa_middleware.scoring.token_texts import token_texts
from pa_middleware.scoring.told import Asking
from pa_middleware.scoring.turn_ends import turn_ends

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

GIBIBYTE = 1 << 30


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
        cache_bytes: keys and values kept of all conversations between steps, of both models; the conversations used
            longest ago are forgotten beyond it.
        repeatable: give the same bits for the same step, whatever was scored before, by reading prompts in fixed blocks
            and keeping nothing of the candidates. Costs about a third more tokens. By default only where weights are of
            half precision, for there the order of reading moves a log-prob by tenths of a nat, and where a tree of
            candidates can be read at all.
        confidence: read the policy's per-token confidence off the same rows; see `CandidateScore.confidence`.
        name: `policy` and `reference` as traces should call them.

    Raises:
        PairError: the models cannot be scored with this tokenizer.
        ScoringError: a model cannot be scored exactly; see `self_check`.
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
        overflow: Overflow = "error",
        cache_bytes: int = 2 * GIBIBYTE,
        repeatable: bool | None = None,
        confidence: bool = False,
        name: tuple[str, str] | None = None,
    ) -> None:
        if overflow not in ("error", "truncate"):
            raise ValueError(f"overflow is {overflow!r}; allowed: 'error', 'truncate'")
        if max_length is not None and max_length < 2:
            raise ValueError(
                f"max_length is {max_length!r}; allowed: at least 2 tokens, or None for what the models read"
            )
        action_score([-1.0], [-1.0], beta=beta, aggregation=aggregation, order=order)  # refuses unknown settings now
        half = any(model.dtype.itemsize < 4 for model in (policy, reference))
        self.repeatable = half if repeatable is None else repeatable
        self.policy, self.reference = self._readable(policy, reference, confidence)
        if repeatable is None and half and "anew" in (self.policy.chosen.method, self.reference.chosen.method):
            self.repeatable = False  # where it would cost the whole history at every step, it has to be asked for
            self.policy, self.reference = self._readable(policy, reference, confidence)
        self.conversations = Conversations(
            lambda: (self.policy.open(), self.reference.open()),
            budget=cache_bytes,
            bytes_per_token=self.policy.chosen.bytes_per_token + self.reference.chosen.bytes_per_token,
        )
        self._overlap = Overlap(side_by_side=True if policy.device != reference.device else None)
        self._background = Background()
        self.tokenizer = tokenizer
        self.beta = beta
        self.aggregation = aggregation
        self.order = order
        self.overflow = overflow
        self.end_of_turn = end_of_turn
        self.template_kwargs = dict(template_kwargs or {})
        self._identity: dict[str, str] = {}
        self._identifying = threading.Lock()
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
        ends = dict.fromkeys([self.renderer.turn_end, *sorted(turn_ends(policy, tokenizer))])
        self._exact = ExactIds(tokenizer, ends=[end for end in ends if end is not None], end_of_turn=end_of_turn)
        self._composer = Composer(beta, aggregation, order)
        # Who is believed. Half precision moves a log-prob by who reads it; how sure the policy was is not told.
        self._writers = (
            "" if self.repeatable or confidence else model_key(policy),
            "" if self.repeatable else model_key(reference),
        )

    @classmethod
    def from_pretrained(
        cls,
        policy: str | Path,
        reference: str | Path,
        *,
        policy_revision: str = "main",
        reference_revision: str = "main",
        policy_gguf: str | None = None,
        reference_gguf: str | None = None,
        dtype: torch.dtype | str = "auto",
        device: torch.device | str = "cpu",
        **settings: Any,
    ) -> ModelPair:
        """A pair from two checkpoints: folders, or names on a model hub.

        Weights load from safetensors or GGUF only and no code from a checkpoint runs.

        Args:
            policy: the RL-trained model, with tokenizer and chat template.
            reference: the model it started from, with its tokenizer.
            policy_revision: commit, tag or branch on the hub.
            reference_revision: the same for the reference.
            policy_gguf: the name of a GGUF file in the policy's folder to load it from; its weights are dequantized.
            reference_gguf: the same for the reference.
            dtype: of both models; `auto` keeps each checkpoint's own.
            device: where both models go.
            settings: everything else `ModelPair` takes.

        Raises:
            PairError: the tokenizers give different ids, or a checkpoint lacks weights.
            OSError: a checkpoint cannot be found or read.
        """
        places: dict[str, Any] = {"dtype": dtype, "device": device}
        policy_model, tokenizer = load(policy, revision=policy_revision, gguf_file=policy_gguf, **places)
        reference_model, theirs = load(reference, revision=reference_revision, gguf_file=reference_gguf, **places)
        check_same_vocabulary(tokenizer, theirs)
        settings.setdefault("name", (str(policy), str(reference)))
        return cls(policy_model, reference_model, tokenizer, **settings)

    def score(self, steps: Sequence[Step]) -> list[StepScore]:
        """Progress advantage of every candidate of every step.

        A step of a conversation goes on from what was read of it before. Steps without one are read together, what they
        share once.

        Raises:
            UnscorableActionError: a candidate is empty, malformed or no AIMessage.
            RenderingError: the history cannot be turned into a prompt.
            ContextLengthError: too long, and `overflow` is `error`.
            ScoringError: a model answered something that is not finite.
        """
        fitted = [self._fitted(step) for step in steps]
        scores: dict[int, StepScore] = {}
        for numbers, answers in self._answers(fitted, [step.conversation for step in steps]):
            for number, answer in zip(numbers, answers, strict=True):
                scores[number] = self._score(fitted[number], steps[number], *answer)
        return [scores[number] for number in range(len(steps))]

    def read_ahead(self, history: Sequence[BaseMessage], tools: Sequence[Tool] = (), *, conversation: str) -> None:
        """Begin to read a step's prompt in the background, while its candidates are still being drawn.

        Changes no score. Whatever goes wrong here goes wrong in `score` again, and is raised there.

        Args:
            history: as in the step that will be scored.
            tools: the same.
            conversation: the same.
        """
        self._background.run(conversation, lambda: self._read(history, tools, conversation))

    def token_texts(self, ids: Sequence[int]) -> list[str]:
        """The text of each token; see `token_texts.token_texts`."""
        return token_texts(self.tokenizer, ids)

    def forget(self, conversation: str | None = None) -> None:
        """Free what is kept of a conversation, or of all."""
        self.conversations.clear(conversation)

    def fingerprint(self) -> Mapping[str, str]:
        """Which pair this is; see `fingerprint.pair_fingerprint`. Some values of every weight are read, the first time.

        Raises:
            ScoringError: weights are not in memory.
        """
        with self._identifying:
            if not self._identity:
                self._identity = pair_fingerprint(self)
            return dict(self._identity)

    def least_margin(self, tokens: int) -> float:
        """The least difference between two scores of so many tokens that says more than rounding does.

        From the rounding noise that `self_check` measured when the pair was made; see `Composer.least_margin`.

        Args:
            tokens: of the longer action.
        """
        noise = math.hypot(self.policy.chosen.noise, self.reference.chosen.noise)
        return self._composer.least_margin(tokens, noise)

    def _readable(
        self, policy: PreTrainedModel, reference: PreTrainedModel, confidence: bool
    ) -> tuple[CausalLM, CausalLM]:
        return (
            CausalLM(policy, repeatable=self.repeatable, confidence=confidence),
            CausalLM(reference, repeatable=self.repeatable),
        )

    def _answers(
        self, fitted: Sequence[FittedStep], conversations: Sequence[str | None]
    ) -> Iterator[tuple[list[int], list[tuple[list[Floats], list[Floats]]]]]:
        """Numbers of steps read together, and for each the log-probs of its candidates under policy and reference."""
        alone = [number for number, key in enumerate(conversations) if key is None]
        if alone:
            longest = max(len(fitted[number].prompt) + fitted[number].beside for number in alone) + TOKENS
            with self.conversations.use(None, fitted[alone[0]].prompt, longest) as (readings, most):
                size = 0 if self.repeatable else TOKENS
                prompts = [fitted[number].prompt for number in alone]
                for portion in portions(prompts, [fitted[number].beside for number in alone], tokens=size):
                    numbers = [alone[place] for place in portion]
                    yield numbers, self._ask([fitted[number] for number in numbers], readings, most)
        for number, key in enumerate(conversations):
            if key is not None:
                step = fitted[number]
                with self.conversations.use(key, step.prompt, len(step.prompt) + step.beside) as (readings, most):
                    yield [number], self._ask([step], readings, most, key)

    def _ask(
        self, steps: Sequence[FittedStep], readings: Readings, most: int, conversation: str | None = None
    ) -> list[tuple[list[Floats], list[Floats]]]:
        policy, reference = (Asking(steps, writer) for writer in self._writers)
        roles = (self.policy, policy), (self.reference, reference)
        lent = [borrowed(model, steps) if asked.queries and not self.repeatable else None for model, asked in roles]

        def ours() -> list[Floats]:
            return self.policy.answer(policy.queries, lent[0] or readings[0], most=most)

        def theirs() -> list[Floats]:
            return self.reference.answer(reference.queries, lent[1] or readings[1], most=most)

        if policy.queries and reference.queries:
            work = sum(len(query.scored) for query in policy.queries)
            answers = self._overlap.both(ours, theirs, work=work)
        else:
            answers = ours(), theirs()
        if conversation is not None:
            idle = (not asked.queries or reading is not None for (_, asked), reading in zip(roles, lent, strict=True))
            self.conversations.note_idle(conversation, tuple(idle))
        return list(zip(policy.answered(answers[0]), reference.answered(answers[1]), strict=True))

    def _fitted(self, step: Step) -> FittedStep:
        return fit(self._exact.put(self.renderer.render(step), step), self.max_length, self.overflow)

    def _read(self, history: Sequence[BaseMessage], tools: Sequence[Tool], conversation: str) -> None:
        prompt = self.renderer.prompt(history, tools)
        if self.max_length is not None and len(prompt) >= self.max_length:
            return  # what will be read of it depends on the candidates
        for model in (self.policy, self.reference):
            model.check([Query((*prompt, 0), len(prompt))])
        with self.conversations.use(conversation, prompt, len(prompt)) as (readings, most):
            # Of a new one it is not known who drives it. Who can, reads the prompt itself, and need not have it read.
            idle = self.conversations.idle(conversation) or [
                driven(model) and not self.repeatable for model in (self.policy, self.reference)
            ]
            for reading, needless in zip(readings, idle, strict=True):
                if not needless:
                    reading.read(prompt, most=most)

    def _score(
        self, fitted: FittedStep, step: Step, policy: Sequence[Floats], reference: Sequence[Floats]
    ) -> StepScore:
        tokens = max(len(action.ids) for action in fitted.actions)
        candidates = self._composer.candidates(step, fitted, policy, reference)
        return StepScore(candidates, least_margin=self.least_margin(tokens))


def _name(model: PreTrainedModel, fallback: str) -> str:
    return str(getattr(model.config, "name_or_path", "") or fallback)
