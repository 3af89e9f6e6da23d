"""A local trace file: every finished span on disk before the step goes on, no server, no global provider.

The one module of this package that needs `opentelemetry-sdk`; it is imported when `record` is first used. A recording
is synchronous and unsampled, and survives the death of the process (`kill -9`), though no loss of power: it does not
fsync.
"""

from __future__ import annotations

import atexit
import os
import secrets
import threading
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from opentelemetry import metrics
from opentelemetry.exporter.otlp.json.file.trace_exporter import FileSpanExporter
from opentelemetry.sdk.environment_variables import OTEL_SDK_DISABLED
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from pa_middleware.tracing import conventions as names
from pa_middleware.tracing.current import closed, opened

SUFFIX = ".jsonl"
"""How the name of a trace file ends."""


def record(path: str | os.PathLike[str]) -> Recording:
    """Record the steps of all guards to a file until the recording is closed.

    `path` is a file that ends in .jsonl, which is appended to, or a directory, where each recording makes a file of its
    own. Missing directories are made. Guards need not know of it, and may be older than it. A process that is forked
    meanwhile writes to a file of its own beside it, with its process id in the name.

    While it is open, guards whose telemetry was given no tracer provider write here INSTEAD of to the global provider.
    Inside one context (task, thread) the recording opened last is used; threads with no recording of their own use the
    one the process opened last. A file is OTLP-JSON, one request a line.

    Raises ValueError for a path that is neither, and OSError for one that cannot be written.
    """
    return Recording(path)


class Recording:
    """An open trace file. Close it, or use it as a context manager; at the latest it closes when Python ends."""

    path: Path
    """The file written to; for a directory, the file made in it."""
    tracer_provider: TracerProvider
    """The recording's own provider, for a `Telemetry` that should use it and no other."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = _file(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _end_torn_line(self.path)
            self._exporter = _Exporter(self.path)
        except OSError as error:
            reason = error.strerror or str(error)
            message = f"record() cannot write to {os.fspath(path)!r}: {reason}. Give a path that this user may write to"
            raise OSError(error.errno or 0, message, str(self.path)) from error
        if os.environ.get(OTEL_SDK_DISABLED, "").strip().lower() == "true":
            warnings.warn(
                f"{OTEL_SDK_DISABLED} is set, so nothing will be recorded to {str(self.path)!r}; unset it to record",
                RuntimeWarning,
                stacklevel=3,
            )
        # Limits and sampling come from no environment variable: a debugging record loses nothing.
        limits = SpanLimits(max_span_attributes=SpanLimits.UNSET, max_span_attribute_length=SpanLimits.UNSET)
        self.tracer_provider = TracerProvider(
            sampler=ALWAYS_ON, resource=_resource(), span_limits=limits, shutdown_on_exit=False
        )
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._entry = opened(self.tracer_provider)
        self._lock = threading.Lock()
        self._closed = False
        atexit.register(self.close)

    @property
    def failures(self) -> int:
        """How many spans could not be written so far."""
        return self._exporter.failures

    def close(self) -> None:
        """Stop recording; warns (RuntimeWarning) if spans could not be written. Safe to call twice."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        atexit.unregister(self.close)
        closed(self._entry)
        self.tracer_provider.shutdown()
        if self.failures:
            warnings.warn(
                f"{self.failures} span(s) could not be written to {str(self.path)!r}: the trace is incomplete. The "
                "log of opentelemetry.exporter says why; look for a full disk",
                RuntimeWarning,
                stacklevel=2,
            )

    def __enter__(self) -> Recording:
        """The recording, which is open already."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Close it."""
        self.close()


class _Exporter(SpanExporter):
    """The file exporter, in a file of its own for each process, and with a count of failed writes.

    The span processor ignores failed writes. And a process that was forked shares its parent's file, in which the lines
    of both would run into each other.
    """

    def __init__(self, path: Path) -> None:
        self.failures = 0
        self._path = path
        self._process = os.getpid()
        self._exporter = FileSpanExporter(path)
        self._lock = threading.Lock()
        self._metric = metrics.get_meter(names.SCOPE).create_counter(
            names.WRITE_FAILURES_METRIC, "{span}", "Spans that could not be written to the local trace file"
        )

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            if self._process != os.getpid():
                self._begin_anew()
            result = self._exporter.export(spans)
        except Exception:  # noqa: BLE001
            result = SpanExportResult.FAILURE
        if result is SpanExportResult.FAILURE:
            with self._lock:
                self.failures += len(spans)
            self._metric.add(len(spans))
        return result

    def _begin_anew(self) -> None:
        """Go on in a file beside the parent's, whose lock may be held by a thread that is not in this process."""
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._exporter = FileSpanExporter(self._path.with_suffix(f".{self._process}{SUFFIX}"))

    def shutdown(self) -> None:
        try:
            self._exporter.shutdown()
        except OSError:  # what is still buffered cannot be written: those spans are counted already
            self.failures = max(self.failures, 1)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


def _file(path: str | os.PathLike[str]) -> Path:
    given = os.fspath(path)
    target = Path(given)
    if given and (target.is_dir() or given.endswith(("/", os.sep)) or not (target.suffix or target.exists())):
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        return target / f"{stamp}-{os.getpid()}-{secrets.token_hex(3)}{SUFFIX}"
    if target.suffix == SUFFIX:
        return target
    raise ValueError(
        f"record() got {given!r}, which is no directory and does not end in {SUFFIX}. Give a file such as "
        f'"traces/run{SUFFIX}", or a directory with a slash at its end such as "traces/"'
    )


def _end_torn_line(path: Path) -> None:
    """End the last line of a file whose writer was killed in it, so that the next span gets a line of its own."""
    if not path.is_file() or path.stat().st_size == 0:
        return
    with path.open("rb+") as file:
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            file.write(b"\n")


def _resource() -> Resource:
    resource = Resource.create()
    if str(resource.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        return resource.merge(Resource({SERVICE_NAME: names.SCOPE}))
    return resource
