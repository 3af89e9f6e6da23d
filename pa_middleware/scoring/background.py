"""Work done ahead of its time in one thread of its own; the latest of each kind only, and its failures are nobody's."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable

from pa_middleware.scoring.forks import start_anew_after_fork

_log = logging.getLogger(__name__)


class Background:
    """Runs what it is given, oldest first, and ends its thread when there is nothing left to do."""

    def __init__(self) -> None:
        self.start_anew()
        start_anew_after_fork(self)

    def start_anew(self) -> None:
        """Begin without threads and locks of before."""
        self._lock = threading.Lock()
        self._waiting: OrderedDict[str, Callable[[], None]] = OrderedDict()
        self._thread: threading.Thread | None = None

    def run(self, kind: str, work: Callable[[], None]) -> None:
        """Do this soon, in place of what waits under the same name."""
        with self._lock:
            self._waiting[kind] = work
            if self._thread is None:
                thread = threading.Thread(target=self._work, name="pa-read-ahead")
                thread.start()
                self._thread = thread  # not before: one that could not start would be waited for

    def wait(self) -> None:
        """Until everything is done that was asked for."""
        thread = self._thread
        if thread is not None:
            thread.join()

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._thread = None
                    return
                _, work = self._waiting.popitem(last=False)
            try:
                work()
            except Exception:  # noqa: BLE001 - only a head start is lost
                _log.debug("reading ahead failed", exc_info=True)
