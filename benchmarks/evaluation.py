"""Recorded runs from one end to the other: `pa-middleware score`, then `evaluate uq` and `tts` of what it wrote.

    python -m benchmarks.evaluation --data gpt-4o-airline.json [--model tiny|smollm2] [--tasks N]
        [--parity official] [--out FOLDER]

The file is tau-bench's results. `tiny` is a pair of random weights with a context of 32,768 tokens, whose tokenizer is
trained on the runs: it shows the machinery, and its numbers say nothing of the signal. `smollm2` is
SmolLM2-135M-Instruct; no model that it was trained from comes with it, so that its reference is the same model, its
weights off by 1 % of their spread. Printed are minutes, tokens of actions a second, and peak memory of scoring.
"""

from __future__ import annotations

import argparse
import copy
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.scoring_models import ModelName, load_pair, smollm2_tokenizer
from pa_middleware.evaluation.scores_file import read_scores

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

COMMAND = "from pa_middleware.cli import app; app()"
VOCABULARY = 4_096
CONTEXT = 32_768
TURNS = ("<|im_start|>", "<|im_end|>")
TEMPLATE = """{% for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}{% for call in message.tool_calls or [] %}{{ call.function | tojson }}{% endfor %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def tiny(data: Path) -> tuple[PreTrainedModel, PreTrainedModel, PreTrainedTokenizerBase]:
    """Random weights, and a tokenizer of the file's own words."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[*TURNS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    runs: list[dict[str, Any]] = json.loads(data.read_text(encoding="utf-8"))
    backend.train_from_iterator((str(message.get("content")) for run in runs for message in run["traj"]), trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=TURNS[1])  # type: ignore[no-untyped-call]
    tokenizer.chat_template = TEMPLATE
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
    )
    pair = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        pair.append(LlamaForCausalLM(config))
    return pair[0], pair[1], tokenizer


def saved(name: ModelName, data: Path, folder: Path) -> None:
    """A pair's folder, as `--pair` takes it."""
    if name == "tiny":
        policy, reference, tokenizer = tiny(data)
    else:
        (policy, reference), tokenizer = load_pair(name), smollm2_tokenizer()
    for role, model in (("policy", policy), ("reference", reference)):
        _plain(model).save_pretrained(folder / role)
        tokenizer.save_pretrained(folder / role)


def _plain(model: PreTrainedModel) -> PreTrainedModel:
    """The same model without the mark of a GGUF file, with which it could not be saved."""
    config = copy.deepcopy(model.config)
    config.__dict__.pop("quantization_config", None)
    plain = type(model)(config)
    plain.load_state_dict(model.state_dict())
    return plain


def first_tasks(data: Path, tasks: int, folder: Path) -> Path:
    """A file of all runs of the first tasks."""
    runs: list[dict[str, Any]] = json.loads(data.read_text(encoding="utf-8"))
    first = list(dict.fromkeys(run["task_id"] for run in runs))[:tasks]
    file = folder / data.name
    file.write_text(json.dumps([run for run in runs if run["task_id"] in first]), encoding="utf-8")
    return file


def run(*arguments: object) -> float:
    """Minutes that a command line takes."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", COMMAND, *map(str, arguments)], check=True)  # noqa: S603 - our own command
    return (time.perf_counter() - start) / 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", choices=("tiny", "smollm2"), default="tiny")
    parser.add_argument("--tasks", type=int, help="only all runs of so many first tasks")
    parser.add_argument("--parity", choices=("official",))
    parser.add_argument("--out", type=Path, help="keep what is written; by default it is thrown away")
    given = parser.parse_args()
    with TemporaryDirectory() as temporary:
        pair, out = Path(temporary), given.out or Path(temporary)
        saved(given.model, given.data, pair)
        scores = out / "scores.jsonl"
        data = first_tasks(given.data, given.tasks, pair) if given.tasks else given.data
        parity = ("--parity", given.parity) if given.parity else ()
        minutes = run("score", data, "--pair", pair, "--out", scores, "--overwrite", *parity)
        # Kibibytes, but on macOS.
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / (1 << (30 if sys.platform == "darwin" else 20))
        evaluated = {name: run("evaluate", name, scores, "--json", out / f"{name}.json") for name in ("uq", "tts")}
        tokens = sum(step.policy.size for each in read_scores([scores]).runs for step in each.steps)
    print(
        f"score: {minutes:.1f} minutes, {tokens / minutes / 60:.0f} tokens of actions a second, {peak:.1f} GiB at most"
    )
    print(", ".join(f"evaluate {name}: {each:.1f} minutes" for name, each in evaluated.items()))


if __name__ == "__main__":
    main()
