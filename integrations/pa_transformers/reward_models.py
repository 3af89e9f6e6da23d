"""Reward models that transformers can run, to compare the progress advantage with: of whole runs, and of each step.

`RewardModel`s of `pa_middleware.evaluation`, such as WildReward and ThinkPRM, which the paper compares with. The text
of a run is never read as control tokens.

    judge = ProcessRewardModel(AutoModelForCausalLM.from_pretrained(...), AutoTokenizer.from_pretrained(...))
    score_with(judge, read_trajectories(["runs.json"]), "judge.jsonl")
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from langchain_core.messages import HumanMessage
from scipy.special import expit

from pa_middleware.evaluation.trajectory import Trajectory
from pa_middleware.scoring.causal_lm import CausalLM, context_length
from pa_middleware.scoring.reading import Query
from pa_middleware.scoring.rendering import Renderer
from pa_middleware.scoring.sealing import TextTokenizer
from pa_middleware.scoring.turn_ends import turn_ends
from pa_transformers.run_texts import Prompt, outcome_prompt, process_prompt, step_texts, task_text
from pa_transformers.verdicts import WORDS, verdicts

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class OutcomeRewardModel:
    """Rates a whole run with a sequence classifier on top of a causal model.

    One logit is the score. Several are those of an ordinal rating, each of "better than this grade": the score is
    1 plus the sum of their sigmoids, and so from 1 to 1 plus their number.

    Args:
        model: an `AutoModelForSequenceClassification`.
        tokenizer: of it.
        name: in tables; None: the last part of the checkpoint's.
        prompt: text of a run; give the one that the model was trained with.
        max_length: tokens that are read, if the model can read more; the oldest are cut off.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str | None = None,
        prompt: Prompt = outcome_prompt,
        max_length: int | None = None,
    ) -> None:
        model.train(False)
        self.name = name or _name(model)
        self._model: Any = model
        self._text = TextTokenizer(tokenizer)
        self._begin = [] if tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]
        self._prompt = prompt
        self._longest = min(max_length or math.inf, context_length(model) or math.inf)

    @torch.inference_mode()
    def score(self, trajectory: Trajectory) -> float:
        """How good the run was."""
        ids = self._text.encode(self._prompt(task_text(trajectory), step_texts(trajectory)))[0]
        cut = max(0, int(len(self._begin) + len(ids) - self._longest)) if self._longest < math.inf else 0
        given = torch.tensor([[*self._begin, *ids[cut:]]], device=self._model.device)
        logits = self._model(input_ids=given).logits[0].float()
        return float(logits) if logits.numel() == 1 else 1.0 + float(logits.sigmoid().sum())


class ProcessRewardModel:
    r"""Has a model check each step in writing, and scores a step by how sure it is of its verdict.

    It writes `Step 3 is \boxed{correct}`, or incorrect; the score is P(correct), read from the log-probs of the first
    tokens of the two words where the one that it wrote begins. Steps without a verdict have no score. Of a run that is
    too long the oldest steps are not shown, and have none.

    Args:
        model: an `AutoModelForCausalLM`.
        tokenizer: of it, with a chat template.
        name: in tables; None: the last part of the checkpoint's.
        prompt: text of a run; give the one that the model was trained with.
        max_new_tokens: most that the model may write on a run.

    Raises:
        PairError: the tokenizer has no chat template that can be rendered safely.
        ValueError: the two words begin with the same token.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str | None = None,
        prompt: Prompt = process_prompt,
        max_new_tokens: int = 4096,
    ) -> None:
        self.name = name or _name(model)
        self._model: Any = model
        self._reader = CausalLM(model)
        self._tokenizer = tokenizer
        self._renderer = Renderer(tokenizer)
        self._text = TextTokenizer(tokenizer)
        self._first = [self._text.encode(word, continues=True)[0][0] for word in WORDS]
        if len(set(self._first)) < len(WORDS):
            raise ValueError(f"the tokenizer begins {' and '.join(WORDS)} with the same token; no verdict can be read")
        self._prompt = prompt
        self._most = max_new_tokens

    def score(self, trajectory: Trajectory) -> list[float | None]:
        """P(correct) of each action; None for those that got no verdict."""
        steps = step_texts(trajectory)
        scores: list[float | None] = [None] * len(steps)
        asked = self._asked(task_text(trajectory), steps)
        if asked is None:
            return scores
        told = verdicts(self._tokenizer, self._text, self._write(asked))
        graded = {number: [*asked, *before] for number, before in told.items() if 1 <= number <= len(steps)}
        queries = [Query((*before, word), len(before)) for before in graded.values() for word in self._first]
        answers = [float(values[0, 0]) for values in self._reader.answer(queries, self._reader.open())]
        for number, correct, incorrect in zip(graded, answers[::2], answers[1::2], strict=True):
            scores[number - 1] = float(expit(correct - incorrect))
        return scores

    def _asked(self, task: str, steps: Sequence[str]) -> tuple[int, ...] | None:
        """The prompt with as many of the latest steps as fit; None if none does."""
        longest = context_length(self._model) or math.inf
        for first in range(len(steps)):
            ids = self._renderer.prompt([HumanMessage(self._prompt(task, steps[first:]))])
            if len(ids) + self._most <= longest:
                return ids
        return None

    @torch.inference_mode()
    def _write(self, asked: Sequence[int]) -> list[int]:
        """The likeliest token, again and again, up to the end of the turn."""
        given = torch.tensor([list(asked)], device=self._model.device)
        written = self._model.generate(
            given,
            attention_mask=torch.ones_like(given),
            max_new_tokens=self._most,
            do_sample=False,
            eos_token_id=sorted(turn_ends(self._model, self._tokenizer)),
            pad_token_id=self._tokenizer.eos_token_id,
        )
        return [int(token) for token in written[0, len(asked) :]]


def _name(model: PreTrainedModel) -> str:
    return str(model.config.name_or_path).rstrip("/").rpartition("/")[2] or type(model).__name__
