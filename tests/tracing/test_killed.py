"""An agent that is killed in the middle of its work has left every step that it finished."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import sys
import zlib
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from tracing.long_lived import STEPS

from pa_middleware.debugging.report import write_report
from pa_middleware.tracing import Reader, Telemetry, read, record
from pa_middleware.tracing.runs import Run

if TYPE_CHECKING:
    from tracing.conftest import Backend


def _started(folder: Path, conversations: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tracing.long_lived", str(folder), str(conversations)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def _spans(runs: list[Run]) -> set[str]:
    return {step.span_id for run in runs for step in run.steps}


def _shown(report: Path) -> set[str]:
    """Span ids of the steps whose details a report holds."""
    packed = re.findall(r'<script type="text/plain" id="run-\d+">([^<]*)<', report.read_text("utf-8"))
    runs = [json.loads(zlib.decompress(base64.b64decode(each))) for each in packed]
    return {step["span"] for run in runs for step in run["steps"]}


def test_every_finished_step_of_a_process_that_was_killed_is_in_the_file_and_in_the_report(
    backend: Backend, tmp_path: Path
) -> None:
    folder = tmp_path / "traces"
    with _started(folder, 20) as killed, _started(folder, 1) as other:
        assert killed.stdout is not None
        list(takewhile(lambda line: line != "520\n", killed.stdout))
        killed.kill()
        told = [520, *map(int, killed.stdout.read().split())]
        other.communicate(timeout=60)
    assert (killed.returncode, other.returncode) == (-signal.SIGKILL, 0)
    (file,) = folder.glob(f"*-{killed.pid}-*.jsonl")

    runs = read(file)
    finished = [step for run in runs for step in run.steps if step.decision]
    assert told[-1] <= len(finished) <= told[-1] + 1
    assert all(step.score is not None and step.candidates for step in finished)
    for run in runs:
        assert [step.index for step in run.steps] == list(range(len(run.steps)))
    assert [len(run.steps) for run in runs[:-1]] == [STEPS] * (len(runs) - 1)

    text = file.read_text("utf-8")
    assert text.count('"request"') == sum(len(run.steps) == STEPS for run in runs)  # an open root is not in the file
    with file.open("a") as torn:
        torn.write(text[:1000])
    with record(file), Telemetry().step(index=0) as span:  # a later process goes on in the file that was torn
        backend.decide(span)
    runs = list(Reader(folder).runs())
    assert _spans(runs) >= {step.span_id for step in finished}
    assert sorted(len(run.steps) for run in runs)[-2:] == [STEPS, STEPS]
    assert len({run.trace_id for run in runs}) == len(runs) == len(read(file)) + 1
    written = write_report(runs, tmp_path / "report.html")
    assert written.steps == len(_spans(runs))
    assert _shown(tmp_path / "report.html") == _spans(runs)
