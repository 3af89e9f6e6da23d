"""Where telemetry goes: the providers a `Telemetry` was given or finds, and what it was told of scorer and content."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from opentelemetry import metrics, trace
from opentelemetry._logs import Logger, LoggerProvider, SeverityNumber, get_logger
from opentelemetry.context import Context

from pa_middleware.tracing import attributes as make
from pa_middleware.tracing import conventions as names
from pa_middleware.tracing.attributes import Attributes
from pa_middleware.tracing.current import current_provider
from pa_middleware.tracing.metrics import Instruments
from pa_middleware.tracing.quiet import Quiet
from pa_middleware.tracing.shown import Told

if TYPE_CHECKING:
    from pa_middleware.scoring.scorer import CandidateScore


@dataclass(slots=True)
class Sink:
    """The outlets of one `Telemetry`. Its methods raise whatever a provider raises; call them inside `quiet`."""

    scorer: str
    described: Attributes
    """Attributes that every guard span carries."""
    content: bool
    token_log_ratios: bool
    tracer_provider: trace.TracerProvider | None
    meter_provider: metrics.MeterProvider | None
    logger_provider: LoggerProvider | None
    fingerprint: Callable[[], Mapping[str, str] | None] | None
    """Answers the scorer's fingerprint, which may take seconds."""
    token_texts: Callable[[Sequence[int]], Sequence[str]] | None = None
    """The text of each token, by ids."""
    quiet: Quiet = field(default_factory=Quiet)
    _told: WeakKeyDictionary[trace.TracerProvider, Told] = field(default_factory=WeakKeyDictionary)
    _instruments: Instruments | None = None
    _logger: Logger | None = None
    _identity: Attributes | None = None
    _identifying: threading.Lock = field(default_factory=threading.Lock)

    def provider(self) -> trace.TracerProvider | None:
        """The provider given, else that of the open recording, else the global one; looked up every time.

        None if nobody has set one: nothing is recorded then, and nothing needs to be built.
        """
        provider = self.tracer_provider or current_provider() or trace.get_tracer_provider()
        return None if isinstance(provider, trace.ProxyTracerProvider) else provider

    def told(self, provider: trace.TracerProvider) -> Told:
        """What was told to a provider: another one, such as that of the next recording, is told all of it anew."""
        return self._told.setdefault(provider, Told())

    def identity(self) -> Attributes:
        """The scorer's fingerprint as attributes. It is asked for once, whatever comes of it; other threads wait."""
        with self._identifying:
            if self._identity is None:
                self._identity = {}
                if self.fingerprint is not None:
                    self._identity = make.fingerprint(self.fingerprint())
            return self._identity

    def token_texts_of(self, score: CandidateScore) -> Attributes:
        """The text of each scored token, where tokens and content are both wanted and known."""
        ids = score.token_ids[: make.MAX_TOKENS]
        if not (ids and self.content and self.token_log_ratios and self.token_texts is not None):
            return {}
        return {names.TOKEN_TEXTS: [make.text(each) for each in self.token_texts(ids)]}

    def instruments(self) -> Instruments:
        """The metrics' instruments, made on first use. A global provider that is set later is picked up."""
        if self._instruments is None:
            self._instruments = Instruments(metrics.get_meter(names.SCOPE, meter_provider=self.meter_provider))
        return self._instruments

    def evaluated(self, attributes: Attributes, *, failed: bool, context: Context) -> None:
        """Write the evaluation event. The API of logs still bears an underscore, so it is used here only.

        A global provider that is set later is picked up.
        """
        if self._logger is None:
            self._logger = get_logger(names.SCOPE, logger_provider=self.logger_provider)
        self._logger.emit(
            event_name=names.EVALUATION_EVENT,
            severity_number=SeverityNumber.WARN if failed else SeverityNumber.INFO,
            attributes=attributes,
            context=context,
        )

    def failed(self, span: trace.Span, failure: str | None, error: BaseException | None) -> None:
        """Mark a span as failed, if it did. An exception's message may quote content, and is treated as content."""
        if failure is None:
            return
        span.set_attribute(names.ERROR_TYPE, failure)
        description = str(error) if error is not None and self.content else None
        span.set_status(trace.Status(trace.StatusCode.ERROR, description))
