"""Runs in which both models act and score, recorded and read back: are their scores those of the tables?"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from pa_demos.taxi.environment import ACTIONS
from pa_demos.taxi.episode import Episode, run_episode
from pa_demos.taxi.prompt import window

from benchmarks.selection_figures import Report, show
from benchmarks.selection_scorers import STATES, shown_as
from benchmarks.selection_tables import Tables
from pa_middleware.debugging import attribute
from pa_middleware.tracing import read, record
from pa_middleware.tracing.runs import Run


def live(tables: Tables, count: int) -> Report:
    """So many runs of the reference under a guard in shadow mode."""
    with TemporaryDirectory() as folder:
        with record(Path(folder) / "runs.jsonl") as recording:
            episodes = [run_episode("shadow", seed, recording.tracer_provider) for seed in range(count)]
        runs = {run.conversation_id: run for run in read([Path(folder)])}
    compared = [_compared(tables, episode, runs[episode.conversation]) for episode in episodes]
    worst = max(max(differences) for differences, _ in compared)
    report: Report = {
        "runs": count,
        "steps": sum(len(differences) for differences, _ in compared),
        "largest_difference": worst,
        "runs_with_another_lowest_step": sum(other for _, other in compared),
    }
    show(
        f"Scores of {count} recorded runs of both models against the tables, nats",
        [report | {"largest_difference": f"{worst:.1e}"}],
    )
    return report


def _compared(tables: Tables, episode: Episode, run: Run) -> tuple[list[float], bool]:
    """How far each score is from the table's, and whether the lowest step is another one.

    A call that cannot be read is in no table and left out.
    """
    pairs = [
        (step.score, float(tables.score[STATES[shown_as(window(episode.goal, note.observation))], action, 0]))
        for step, note in zip(run.steps, episode.notes, strict=True)
        if (action := _action(note.action)) is not None and step.score is not None
    ]
    scores, expected = zip(*pairs, strict=True)
    differences = [abs(one - other) for one, other in pairs]
    return differences, attribute(scores)[0].step != attribute(expected)[0].step


def _action(words: str) -> int | None:
    """The number of an action in a few words, such as `move north`."""
    name = words.removeprefix("move ")
    return ACTIONS.index(name) if name in ACTIONS else None
