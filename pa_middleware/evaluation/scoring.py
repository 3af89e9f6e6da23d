"""Score runs into a file that a crash cannot spoil: finished runs are not scored again, and the file ends the same.

What is scored together, and in which order, follows from the source and the settings alone: windows of runs in the
order of the source, within a window by length, in batches of bounded size. A batch is written at once and is the unit
that a resumed pass goes on from.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from pa_middleware.evaluation.errors import EvaluationError
from pa_middleware.evaluation.scores_file import SHARD, run_line
from pa_middleware.evaluation.scores_writer import ScoresWriter
from pa_middleware.evaluation.stored import StoredRun
from pa_middleware.evaluation.trajectory import Trajectory

WINDOW = 256
"""Runs in memory at once."""
BATCH_CHARACTERS = 64_000
"""Of the messages of a batch; a longer run is a batch of its own."""

ScoreBatch = Callable[[Sequence[Trajectory]], Sequence[StoredRun]]


@dataclass(slots=True)
class Summary:
    """What a pass wrote; what was written before it was interrupted is counted in `before` only."""

    runs: int = 0
    before: int = 0
    """Runs that the file held already."""
    without_actions: int = 0
    """Runs in which there is nothing to score."""
    actions: int = 0
    tokens: int = 0
    truncated: int = 0
    """Scored actions whose agent had seen more than was read."""
    unscored: Counter[str] = field(default_factory=Counter)
    """Actions without a score, by reason."""

    def add(self, runs: Sequence[StoredRun]) -> None:
        """Count runs."""
        steps = [step for run in runs for step in run.steps]
        self.runs += len(runs)
        self.without_actions += sum(not run.steps for run in runs)
        self.actions += len(steps)
        self.tokens += sum(step.policy.size for step in steps)
        self.truncated += sum(step.truncated and not step.unscored for step in steps)
        self.unscored.update(step.unscored for step in steps if step.unscored)


def survey(trajectories: Iterable[Trajectory]) -> tuple[int, str]:
    """What a header says of a source, its `runs` and `digest`: how many there are, and a hash of all that they say.

    Args:
        trajectories: all of the source; none is kept.

    Raises:
        EvaluationError: two runs share an id.
    """
    count, digest = 0, hashlib.sha256()
    for _, run in _distinct(trajectories):
        count += 1
        digest.update(repr(run).encode(errors="backslashreplace"))
    return count, digest.hexdigest()[:32]


def score_trajectories(
    trajectories: Iterable[Trajectory],
    score: ScoreBatch,
    header: Mapping[str, object],
    out: Path,
    *,
    shard: tuple[int, int] = (0, 1),
    overwrite: bool = False,
    done: Callable[[int, int], None] = lambda _, __: None,
) -> Summary:
    """Score runs and write them.

    Args:
        trajectories: all of the source, in its order; read once, a window at a time.
        score: scores a batch; the same bits for the same batch, whatever was scored before.
        header: what tells this pass from others: pair, settings, and the source by its `survey`.
        out: the file. If it was begun with the same header, it is gone on with.
        shard: (i, n): every n-th run, from the i-th.
        overwrite: begin anew, whatever the file holds.
        done: told after each batch how many runs are finished by it, those of before included, and how many tokens
            were scored in it.

    Raises:
        EvaluationError: the file is of another pass, or two runs share an id.
        OSError: the file cannot be written.
        ScoringError: as `score` raises; what was finished stays.
    """
    index, count = shard
    settings = {"window": WINDOW, "batch_characters": BATCH_CHARACTERS, SHARD: f"{index}/{count}"}
    summary = Summary()
    with ScoresWriter(out, {**header, **settings}, overwrite=overwrite) as writer:
        for batch in _batches(_shard(_distinct(trajectories), index, count)):
            tokens = summary.tokens
            if writer.holds([run.id for _, run in batch]):
                summary.before += len(batch)
            else:
                runs = score([run for _, run in batch])
                writer.write([run_line(run, position) for (position, _), run in zip(batch, runs, strict=True)])
                summary.add(runs)
            done(len(batch), summary.tokens - tokens)
        writer.finish()
    return summary


_Placed = tuple[int, Trajectory]


def _distinct(trajectories: Iterable[Trajectory]) -> Iterator[_Placed]:
    """The runs with their places."""
    seen: set[str] = set()
    for position, run in enumerate(trajectories):
        if run.id in seen:
            raise EvaluationError(f"two runs have the id {run.id!r}; give each run once, under an id of its own")
        seen.add(run.id)
        yield position, run


def _shard(runs: Iterator[_Placed], index: int, count: int) -> Iterator[_Placed]:
    return (each for each in runs if each[0] % count == index)


def _batches(runs: Iterator[_Placed]) -> Iterator[list[_Placed]]:
    while window := list(islice(runs, WINDOW)):
        batch: list[_Placed] = []
        size = 0
        for length, place in sorted((_length(run), place) for place, (_, run) in enumerate(window)):
            if batch and size + length > BATCH_CHARACTERS:
                yield batch
                batch, size = [], 0
            batch.append(window[place])
            size += length
        yield batch


def _length(run: Trajectory) -> int:
    return sum(len(str(message.get(part) or "")) for message in run.messages for part in ("content", "tool_calls"))
