"""`pa-middleware score`: every token of every action of finished runs under both models of a pair, stored once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from pa_middleware.evaluation.scoring import ScoreBatch, Summary
    from pa_middleware.evaluation.stored import StoredRun
    from pa_middleware.evaluation.trajectory import Trajectory
    from pa_middleware.scoring.pair import ModelPair


def score(
    runs: Annotated[list[str], typer.Argument(help="Files or folders of runs, or the URI of a PostgreSQL database.")],
    *,
    pair: Annotated[str, typer.Option(help="A named pair, POLICY,REFERENCE, or a folder with policy and reference.")],
    out: Annotated[Path, typer.Option(help="Where to write; a pass that was interrupted is gone on with.")],
    source: Annotated[
        str | None,
        typer.Option(
            help="Form of the runs: tau, tau2, who_and_when, messages, checkpoints, traces, langsmith or "
            "openinference; by default it is found out.",
            show_default=False,
        ),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="CSV or JSONL with run, success (1 or 0) and task, for runs that do not say.")
    ] = None,
    parity: Annotated[
        Literal["official"] | None,
        typer.Option(help="Score as the paper's official code does, to compare numbers with it.", show_default=False),
    ] = None,
    shard: Annotated[str, typer.Option(help="i/n: every n-th run, from the i-th on (0/n to n-1/n).")] = "0/1",
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many first runs.", show_default=False)] = None,
    max_length: Annotated[
        int | None,
        typer.Option(min=2, help="Longest prompt and action, in tokens: by default what both models can read."),
    ] = None,
    beta: Annotated[float, typer.Option(help="KL weight of the RL training; 1 where there was none.")] = 1.0,
    device: Annotated[str, typer.Option(help="Where both models go.")] = "cpu",
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        typer.Option(help="Of both models; auto keeps each checkpoint's own."),
    ] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin anew, whatever the file holds.")] = False,
) -> None:
    """Score finished runs and store everything that evaluating them needs."""
    from itertools import islice

    from pa_middleware.calibration.errors import CalibrationError
    from pa_middleware.calibration.labels import read_labels
    from pa_middleware.evaluation.errors import EvaluationError
    from pa_middleware.evaluation.reading import SOURCES, read_trajectories
    from pa_middleware.evaluation.scoring import score_trajectories, survey
    from pa_middleware.scoring.errors import ScoringError

    if (form := next((each for each in SOURCES if each == source), None)) is None and source is not None:
        raise typer.BadParameter(f"{source!r}; allowed: {', '.join(SOURCES)}", param_hint="--source")
    part = _shard(shard)
    if not (math.isfinite(beta) and beta > 0):
        raise typer.BadParameter(f"{beta}; allowed: a finite number above 0", param_hint="--beta")
    try:
        told = [] if labels is None else read_labels(labels)
    except (OSError, CalibrationError) as error:
        raise typer.BadParameter(str(error), param_hint="--labels") from error

    def trajectories() -> Iterator[Trajectory]:
        return islice(read_trajectories(runs, source=form, labels=told), limit)

    try:
        count, digest = survey(trajectories())
    except (OSError, EvaluationError) as error:
        raise typer.BadParameter(str(error), param_hint="RUNS") from error
    models = _pair(pair, beta=beta, device=device, dtype=dtype, max_length=None if parity else max_length)
    score_batch, header = _pass(models, parity, max_length)
    header |= {"source": [Path(each.split("@")[-1]).name for each in runs], "runs": count, "digest": digest}
    console = Console(stderr=True)
    with _bar(console, len(range(part[0], count, part[1]))) as show:
        try:
            summary = score_trajectories(
                trajectories(),
                score_batch,
                header,
                out,
                shard=part,
                overwrite=overwrite,
                done=show,
            )
        except (OSError, EvaluationError) as error:
            raise typer.BadParameter(str(error), param_hint="--out") from error
        except ScoringError as error:
            console.print(Text(f"Stopped: {error}. What was scored is in {out}; the same command goes on from there."))
            raise typer.Exit(1) from error
    _tell(summary, out)


@contextmanager
def _bar(console: Console, runs: int) -> Iterator[Callable[[int, int], None]]:
    """Shows how far the pass is: told of finished runs, and of tokens."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    tokens = TextColumn("runs, {task.fields[tokens]} tokens")
    columns = (TextColumn("Scoring"), BarColumn(), MofNCompleteColumn(), tokens, TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=runs, tokens=0)
        yield lambda finished, tokens: bar.update(task, advance=finished, tokens=bar.tasks[0].fields["tokens"] + tokens)


def _shard(text: str) -> tuple[int, int]:
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise typer.BadParameter(f"{text!r}; allowed: i/n with i from 0 to n - 1, such as 0/4", param_hint="--shard")
    return int(index), int(count)


def _pair(text: str, *, dtype: str, **settings: Any) -> ModelPair:
    from pa_middleware.scoring.errors import ScoringError
    from pa_middleware.scoring.named_pairs import find_pair
    from pa_middleware.scoring.pair import ModelPair

    try:
        policy, reference = find_pair(text)
        return ModelPair.from_pretrained(
            policy,
            reference,
            dtype=dtype,
            confidence=True,
            overflow="truncate",
            name=(_name(policy), _name(reference)),
            **settings,
        )
    except (OSError, ValueError, RuntimeError, ScoringError) as error:
        raise typer.BadParameter(str(error), param_hint="--pair") from error


def _name(model: str) -> str:
    """A folder without the folders it lies in; what a hub calls it."""
    return "/".join(Path(model).parts[-2:])


def _pass(pair: ModelPair, parity: str | None, max_length: int | None) -> tuple[ScoreBatch, dict[str, object]]:
    from pa_middleware.evaluation.live_pass import LivePass
    from pa_middleware.evaluation.official_pass import OfficialPass
    from pa_middleware.scoring.official import MAX_LENGTH

    header: dict[str, object] = {
        "parity": parity,
        "policy": pair.policy_name,
        "reference": pair.reference_name,
        "fingerprint": dict(pair.fingerprint()),
        "beta": pair.beta,
    }
    if parity is None:
        return LivePass(pair), header | {"max_length": pair.max_length}
    official = OfficialPass(pair, max_length or MAX_LENGTH)

    def score_batch(trajectories: Sequence[Trajectory]) -> list[StoredRun]:
        return [official(trajectory) for trajectory in trajectories]

    return score_batch, header | {"max_length": official.longest}


def _tell(summary: Summary, out: Path) -> None:
    console = Console()
    before = f" ({summary.before} more were there)" if summary.before else ""
    console.print(Text(f"{summary.runs} runs scored{before}: {summary.actions} actions, {summary.tokens} tokens."))
    if summary.without_actions:
        console.print(Text(f"{summary.without_actions} runs without any action."))
    for why, count in sorted(summary.unscored.items()):
        console.print(Text(f"{count} actions without a score: {why}."))
    if summary.truncated:
        console.print(Text(f"{summary.truncated} actions scored without the oldest part of what the agent saw."))
    console.print(Text(f"Written to {out}\nNext: pa-middleware evaluate uq {out}  (or tts, fa)"))
