"""Trace files to a backend: every span as it was recorded, then the scores that the spans hold."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pa_middleware.debugging.push.backend import Backend, Taken, Target
from pa_middleware.debugging.push.batches import Batch, batches
from pa_middleware.debugging.push.errors import PushError
from pa_middleware.debugging.push.langfuse import Langfuse
from pa_middleware.debugging.push.langsmith import LangSmith
from pa_middleware.debugging.push.mlflow import MLflow
from pa_middleware.debugging.push.otlp import Otlp
from pa_middleware.debugging.push.phoenix import Phoenix
from pa_middleware.tracing.otlp import trace_files

BackendName = Literal["otlp", "phoenix", "langfuse", "langsmith", "mlflow"]
BACKENDS: Mapping[BackendName, type[Backend]] = {
    "otlp": Otlp,
    "phoenix": Phoenix,
    "langfuse": Langfuse,
    "langsmith": LangSmith,
    "mlflow": MLflow,
}
MOST_REASONS = 10
"""Different reasons that are kept of a push."""
Source = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class Pushed:
    """What came of a push; of a dry run, what would be sent."""

    endpoint: str
    project: str
    """Name of the project or experiment; "" where the backend has none."""
    spans: int = 0
    """Taken by the backend."""
    scores: int = 0
    """Taken by the backend, or there already."""
    skipped: int = 0
    """Spans in the files that are malformed, and were not sent."""
    failed: int = 0
    """Spans and scores that the backend refused."""
    reasons: tuple[str, ...] = ()
    """Why, in its words; at most ten."""


def push(
    path: Source | Sequence[Source],
    to: BackendName,
    *,
    endpoint: str | None = None,
    project: str | None = None,
    headers: Mapping[str, str] | None = None,
    spans: bool = True,
    scores: bool = True,
    dry_run: bool = False,
    allow_http: bool = False,
) -> Pushed:
    """Send the spans of trace files to a backend, and post their scores by its own API.

    Twice does no more than once; with `otlp`, as far as what takes the spans keeps one for each id.

    `path` is a trace file, a directory of .jsonl files, or several of either. ALL spans in them are sent, as they are:
    where content was recorded, content is sent. `endpoint`, `project` and keys that are not given come from the
    backend's own environment variables. Plain http to another machine needs `allow_http`. What a backend refuses of
    what it was sent is counted, and the push goes on.

    Raises PushError if it cannot begin or go on, FileNotFoundError for a path that does not exist or a directory
    without .jsonl files, ValueError if no span can be read.
    """
    if to not in BACKENDS:
        raise PushError(f"to={to!r} is no backend; allowed: {', '.join(BACKENDS)}")
    if not (spans or scores):
        raise PushError("neither spans nor scores are to be pushed; leave one of the two in")
    if not spans and not BACKENDS[to].takes_scores:
        raise PushError(f"{to} takes spans only, which carry the scores; leave the spans in")
    sources = [path] if isinstance(path, str | os.PathLike) else path
    files = [file for source in sources for file in trace_files(source)]
    backend = BACKENDS[to](Target(endpoint, project, dict(headers or {}), allow_http))
    taken = _Sum()
    with backend.server:
        for batch in batches(files):
            taken.skipped += batch.malformed
            try:
                taken.add(batch, backend, spans=spans, scores=scores and backend.takes_scores, dry_run=dry_run)
            except PushError as error:
                raise PushError(f"{error} (sent so far: {taken.spans} spans, {taken.scores} scores)") from error
    if not taken.seen:
        raise ValueError(f"push() got {[str(file) for file in files]}, in which no OTLP-JSON span can be read")
    return taken.pushed(backend)


class _Sum:
    """What was taken so far."""

    def __init__(self) -> None:
        self.seen = self.spans = self.scores = self.skipped = self.failed = 0
        self._reasons: dict[str, None] = {}

    def add(self, batch: Batch, backend: Backend, *, spans: bool, scores: bool, dry_run: bool) -> None:
        self.seen += batch.spans
        if spans and batch.spans:
            taken = Taken(batch.spans) if dry_run else backend.send(batch.request, batch.spans)
            self.spans += taken.count
            self._failed(taken)
        if scores and batch.scores:
            taken = Taken(len(batch.scores)) if dry_run else backend.post(batch.scores)
            self.scores += taken.count
            self._failed(taken)

    def pushed(self, backend: Backend) -> Pushed:
        return Pushed(
            backend.server.url,
            backend.project,
            self.spans,
            self.scores,
            self.skipped,
            self.failed,
            tuple(self._reasons),
        )

    def _failed(self, taken: Taken) -> None:
        self.failed += taken.failed
        for reason in taken.reasons:
            if len(self._reasons) < MOST_REASONS:
                self._reasons[reason] = None
