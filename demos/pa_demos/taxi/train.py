"""Train the demo's pair from nothing: tokenizer, supervised reference, reinforced policy. About 15 minutes on a core.

Run:
    python -m pa_demos.taxi.train --seed 1 --out pair
"""

from __future__ import annotations

import copy
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from transformers import GenerationConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from .actions import ActionTable, tabulate
from .agreement import agreement
from .card import model_card
from .exact import Table
from .history import full_history_agreement
from .prompt import build_tokenizer
from .reinforce import Settings, reinforce
from .supervised import new_model, train_reference


def train(
    seed: Annotated[int, typer.Option(help="Fixes initial weights, demonstrations and episodes.")] = 1,
    out: Annotated[Path, typer.Option(help="Directory for policy/, reference/, training.json and README.md.")] = Path(
        "pair"
    ),
    threads: Annotated[int, typer.Option(help="Threads torch may use.")] = 1,
) -> None:
    """Train a pair and write it to a directory."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - started:6.0f} s  {text}", flush=True)

    tokenizer = build_tokenizer()
    table = ActionTable(tokenizer)
    reference = new_model(tokenizer)
    supervised_log = train_reference(reference, table, random, say)
    log_reference = tabulate(reference, table)

    policy = copy.deepcopy(reference)
    settings = Settings()
    reinforced_log: list[dict[str, float]] = []

    def report(iteration: int, figures: dict[str, float], log_policy: Table) -> None:
        # Measured for the log only; nothing of it flows back into training.
        measured = agreement(log_policy, log_reference)
        reinforced_log.append({**figures, **measured})
        if iteration % 5 == 0 or iteration == 1:
            say(
                f"iteration {iteration}/{settings.iterations}: loss {figures['loss']:.3f},"
                f" success {measured['policy_success']:.3f}, on-policy Spearman {measured['on_policy_spearman']:.3f},"
                f" top-1 {measured['policy_states_top1']:.3f}"
            )

    reinforce(policy, log_reference, table, random, report=report, settings=settings)
    minutes = (time.monotonic() - started) / 60
    final = agreement(tabulate(policy, table), log_reference)
    history = full_history_agreement(policy, reference, tokenizer)
    record: dict[str, Any] = {
        "seed": seed,
        "minutes": round(minutes, 1),
        "settings": asdict(settings),
        "final": final,
        "full_history": history,
        "supervised": supervised_log,
        "reinforced": reinforced_log,
    }
    for name, model in (("policy", policy), ("reference", reference)):
        _save(model, tokenizer, out / name)
    (out / "training.json").write_text(json.dumps(_rounded(record), indent=1) + "\n", encoding="utf-8")
    (out / "README.md").write_text(model_card(record), encoding="utf-8")
    say(f"wrote {out}: " + ", ".join(f"{name} {value:.3f}" for name, value in final.items()))


def _save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, directory: Path) -> None:
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        do_sample=True,
        temperature=1.0,
        top_k=0,  # the library's default of 50 would cut the distribution that the advantage is about
        top_p=1.0,
        max_new_tokens=64,
    )
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def _rounded(value: Any) -> Any:
    """The same nest of dicts and lists with floats to five significant digits."""
    match value:
        case dict():
            return {key: _rounded(inner) for key, inner in value.items()}
        case list():
            return [_rounded(inner) for inner in value]
        case float():
            return float(f"{value:.5g}")
        case _:
            return value


if __name__ == "__main__":
    typer.run(train)
