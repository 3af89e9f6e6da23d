"""`pa-middleware attribute`: how often attribution with a pair of models names the labelled step of failed runs."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from pa_middleware.json_option import check_writable, write_json

if TYPE_CHECKING:
    from pa_middleware.debugging.attribution import Rule
    from pa_middleware.debugging.labelled_steps import ScoredAction
    from pa_middleware.debugging.who_and_when import LabelledRun
    from pa_middleware.scoring.pair import ModelPair

NOTHING_SCORED = 1
"""Exit code when no action could be scored; 2 is for files and options that cannot be used."""


def attribute(
    runs: Annotated[Path, typer.Argument(help="A labelled run as Who&When writes it, .json, or a folder of them.")],
    *,
    policy: Annotated[str, typer.Option(help="The RL-trained model: a folder, or a name on a model hub.")],
    reference: Annotated[str, typer.Option(help="The model it started from.")],
    rule: Annotated[
        list[str] | None,
        typer.Option(
            help="lowest, lowest_sum, sharpest_fall or first_below; again for more. By default all.", show_default=False
        ),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Score that first_below looks below; by default 0.", show_default=False)
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the score of every action here, one run a line.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many first runs.", show_default=False)] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all numbers to this file as well.")] = None,
    device: Annotated[str, typer.Option(help="Where both models go.")] = "cpu",
) -> None:
    """Score the actions of labelled failed runs with a pair, and compare each rule's suspect with the label."""
    from pa_middleware.debugging.accuracy import DEFAULT_THRESHOLD, accuracy
    from pa_middleware.debugging.accuracy_table import render
    from pa_middleware.debugging.attribution import RULES
    from pa_middleware.debugging.who_and_when import LabelledRunError, read_labelled_runs

    if unknown := [each for each in rule or () if each not in RULES]:
        raise typer.BadParameter(f"{unknown[0]!r}; allowed: {', '.join(RULES)}", param_hint="--rule")
    rules = tuple(each for each in RULES if not rule or each in rule)
    if threshold is not None and not math.isfinite(threshold):
        raise typer.BadParameter(f"{threshold}; allowed: a finite number", param_hint="--threshold")
    if threshold is not None and "first_below" not in rules:
        raise typer.BadParameter("has no effect without first_below; leave it out", param_hint="--threshold")
    below = DEFAULT_THRESHOLD if threshold is None else threshold
    try:
        labelled = read_labelled_runs(runs)[:limit]
    except (OSError, LabelledRunError) as error:
        raise typer.BadParameter(str(error), param_hint="RUNS") from error
    for name, file in (("--out", out), ("--json", json_file)):
        check_writable(file, name)
    pair = _pair(policy, reference, device)
    scored = _scored(pair, labelled, rules, below, out)
    found = accuracy(labelled, scored, rules=rules, threshold=below)
    Console().print(render(found))
    write_json({"policy": policy, "reference": reference, **found.to_dict()}, json_file)
    if not any(action.score is not None for actions in scored for action in actions):
        Console(stderr=True).print("No action of these runs has a score: the rules were not measured.")
        raise typer.Exit(NOTHING_SCORED)


def _pair(policy: str, reference: str, device: str) -> ModelPair:
    from pa_middleware.scoring.errors import ScoringError
    from pa_middleware.scoring.pair import ModelPair

    try:
        return ModelPair.from_pretrained(policy, reference, device=device, overflow="truncate")
    except (OSError, ValueError, RuntimeError, ScoringError) as error:
        raise typer.BadParameter(str(error), param_hint="--policy, --reference") from error


def _scored(
    pair: ModelPair, labelled: Sequence[LabelledRun], rules: Sequence[Rule], threshold: float, out: Path | None
) -> list[list[ScoredAction]]:
    """The actions of each run; a line of `out` for each as soon as it is scored."""
    from rich.progress import track

    from pa_middleware.debugging.labelled_steps import score_run

    scored = []
    with nullcontext() if out is None else out.open("w", encoding="utf-8") as file:
        for run in track(labelled, "Scoring", console=Console(stderr=True), transient=True):
            actions = score_run(pair, run)
            pair.forget(run.name)
            scored.append(actions)
            if file is not None:
                print(json.dumps(_line(run, actions, rules, threshold), allow_nan=False), file=file, flush=True)
    return scored


def _line(
    run: LabelledRun, actions: Sequence[ScoredAction], rules: Sequence[Rule], threshold: float
) -> dict[str, object]:
    from pa_middleware.debugging.accuracy import named

    return {
        "run": run.name,
        "mistake_step": run.mistake_step,
        "mistake_agent": run.mistake_agent,
        "suspects": {rule: named(actions, rule, threshold) for rule in rules},
        "actions": [asdict(action) for action in actions],
    }
