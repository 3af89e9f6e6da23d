"""Train the further policies of `further` from the shipped reference alone. About 20 minutes on a core.

Run:
    python -m pa_demos.taxi.train_further --out further
"""

from __future__ import annotations

import copy
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from .actions import ActionTable, tabulate
from .episode import PAIR
from .exact import Table
from .further import FURTHER, Further, save
from .reinforce import Settings, reinforce


def train_further(
    seed: Annotated[int, typer.Option(help="Fixes the episodes.")] = 1,
    out: Annotated[Path, typer.Option(help="Folder for the weights.")] = Path("further"),
    threads: Annotated[int, typer.Option(help="Threads torch may use; the bits of the weights go with it.")] = 1,
) -> None:
    """Train every further policy and write it to a folder."""
    torch.set_num_threads(threads)
    started = time.monotonic()
    reference = LlamaForCausalLM.from_pretrained(PAIR / "reference")
    table = ActionTable(PreTrainedTokenizerFast.from_pretrained(PAIR / "reference"))
    log_reference = tabulate(reference, table)
    for beta in dict.fromkeys(wanted.beta for wanted in FURTHER):
        policy = copy.deepcopy(reference)

        def report(
            iteration: int,
            figures: dict[str, float],
            _log_policy: Table,
            beta: float = beta,
            policy: LlamaForCausalLM = policy,
        ) -> None:
            # The iteration is over: the policy is what it made, not what it acted with.
            if (reached := Further(beta, iteration)) in FURTHER:
                save(policy, out / reached.file)
                loss, seconds = figures["loss"], time.monotonic() - started
                print(f"{seconds:6.0f} s  beta {beta:g}, iteration {iteration}: loss {loss:.3f}", flush=True)

        settings = Settings(beta=beta)
        reinforce(policy, log_reference, table, np.random.default_rng(seed), report=report, settings=settings)


if __name__ == "__main__":
    typer.run(train_further)
