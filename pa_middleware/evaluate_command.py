"""`pa-middleware evaluate`: the paper's three applications from one stored scoring pass, beside their baselines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from pa_middleware.json_option import check_writable, write_json

if TYPE_CHECKING:
    from pa_middleware.evaluation.result import Evaluation
    from pa_middleware.evaluation.steps_table import Prefix
    from pa_middleware.evaluation.stored import StoredScores


def evaluate(
    application: Annotated[
        Literal["tts", "uq", "fa"],
        typer.Argument(help="tts: best of N runs. uq: which runs succeeded. fa: which step went wrong."),
    ],
    scores: Annotated[
        list[Path], typer.Argument(help="What `score` wrote: one file, its shards, other reward models' scores.")
    ],
    *,
    prefix: Annotated[
        str | None,
        typer.Option(
            help="tts, uq: count so many first actions only, or as many as the task's 'shortest' run has.",
            show_default=False,
        ),
    ] = None,
    max_n: Annotated[
        int | None, typer.Option(min=2, help="tts: largest number of runs to choose among.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of folds and resamples.")] = 0,
    confidence: Annotated[float, typer.Option(help="Of the intervals.")] = 0.95,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all numbers to this file as well.")] = None,
    plots: Annotated[
        Path | None, typer.Option(help="Folder for plots; needs the extra 'plots'.", show_default=False)
    ] = None,
    png: Annotated[bool, typer.Option("--png", help="Plots as PNG instead of SVG.")] = False,
) -> None:
    """Measure progress advantage on your runs, each aggregation chosen on other tasks than it is measured on."""
    from pa_middleware.evaluation.errors import EvaluationError
    from pa_middleware.evaluation.scores_file import read_scores
    from pa_middleware.evaluation.table import render

    if not 0 < confidence < 1:
        raise typer.BadParameter(f"{confidence}; allowed: between 0 and 1, such as 0.95", param_hint="--confidence")
    if png and plots is None:
        raise typer.BadParameter("has no effect without --plots; leave it out", param_hint="--png")
    if application != "tts" and max_n is not None:
        raise typer.BadParameter("has an effect with tts only; leave it out", param_hint="--max-n")
    counted = _prefix(prefix)
    if application == "fa" and counted is not None:
        raise typer.BadParameter("has an effect with tts and uq only; leave it out", param_hint="--prefix")
    check_writable(json_file)
    try:
        found = _evaluated(application, read_scores(scores), counted, max_n, seed=seed, confidence=confidence)
    except (OSError, EvaluationError) as error:
        raise typer.BadParameter(str(error), param_hint="SCORES") from error
    Console().print(render(found))
    write_json(found.to_dict(), json_file)
    if plots is not None:
        from pa_middleware.evaluation.plots import plot

        try:
            plot(found, plots, ending=".png" if png else ".svg")
        except (OSError, ModuleNotFoundError) as error:
            raise typer.BadParameter(str(error), param_hint="--plots") from error


def _prefix(text: str | None) -> Prefix:
    if text is None or text == "shortest":
        return text  # type: ignore[return-value]
    if not text.isdecimal() or int(text) < 1:
        raise typer.BadParameter(f"{text!r}; allowed: a number from 1 on, or shortest", param_hint="--prefix")
    return int(text)


def _evaluated(
    application: str, scores: StoredScores, prefix: Prefix, max_n: int | None, *, seed: int, confidence: float
) -> Evaluation:
    from pa_middleware.evaluation.fa import evaluate_fa
    from pa_middleware.evaluation.tts import MAX_N, evaluate_tts
    from pa_middleware.evaluation.uq import evaluate_uq

    if application == "uq":
        return evaluate_uq(scores, prefix=prefix, seed=seed, confidence=confidence)
    if application == "fa":
        return evaluate_fa(scores, seed=seed, confidence=confidence)
    return evaluate_tts(scores, prefix=prefix, seed=seed, confidence=confidence, max_n=max_n or MAX_N)
