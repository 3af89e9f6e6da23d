from __future__ import annotations

import asyncio
import contextvars
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from pa_middleware.tracing import Telemetry, read, record

if TYPE_CHECKING:
    from tracing.conftest import Backend

FULL = Path("/dev/full")


def _step(backend: Backend, telemetry: Telemetry, index: int = 0) -> None:
    with telemetry.step(index=index) as span:
        span.candidate(0, backend.score(), label="fail", threshold=-0.5)
        backend.decide(span)


def _indices(path: Path) -> list[int]:
    return [step.index for run in read(path) for step in run.steps]


def test_a_guard_older_than_the_recording_is_recorded_while_it_is_open(backend: Backend, tmp_path: Path) -> None:
    telemetry = Telemetry()
    _step(backend, telemetry, 0)
    with record(tmp_path / "run.jsonl"):
        _step(backend, telemetry, 1)
    _step(backend, telemetry, 2)
    assert _indices(tmp_path / "run.jsonl") == [1]


def test_a_provider_that_was_given_wins_over_the_recording(backend: Backend, tmp_path: Path) -> None:
    with record(tmp_path / "run.jsonl") as recording:
        _step(backend, backend.telemetry(), 1)
        _step(backend, Telemetry(tracer_provider=recording.tracer_provider), 2)
    assert _indices(tmp_path / "run.jsonl") == [2]
    assert len(backend.spans("guard")) == 1


def test_a_recording_can_be_used_without_with_and_closed_twice(backend: Backend, tmp_path: Path) -> None:
    recording = record(str(tmp_path / "run.jsonl"))
    _step(backend, Telemetry())
    recording.close()
    recording.close()
    assert (recording.failures, _indices(recording.path)) == (0, [0])


def test_a_recording_closed_in_another_context_is_closed_everywhere(backend: Backend, tmp_path: Path) -> None:
    recording = record(tmp_path / "run.jsonl")
    contextvars.Context().run(recording.close)
    with Telemetry().step(index=0) as span:
        assert span.traceparent == ""


def test_the_innermost_recording_is_used_and_then_the_outer_again(backend: Backend, tmp_path: Path) -> None:
    telemetry = Telemetry()
    with record(tmp_path / "outer.jsonl"):
        with record(tmp_path / "inner.jsonl"):
            _step(backend, telemetry, 1)
        _step(backend, telemetry, 2)
    assert (_indices(tmp_path / "inner.jsonl"), _indices(tmp_path / "outer.jsonl")) == ([1], [2])


def test_recordings_of_concurrent_tasks_stay_apart(backend: Backend, tmp_path: Path) -> None:
    telemetry = Telemetry()

    async def run(index: int) -> None:
        with record(tmp_path / f"{index}.jsonl"):
            await asyncio.sleep(0.01)
            _step(backend, telemetry, index)
            await asyncio.sleep(0.01)

    async def both() -> None:
        await asyncio.gather(run(1), run(2))

    asyncio.run(both())
    assert (_indices(tmp_path / "1.jsonl"), _indices(tmp_path / "2.jsonl")) == ([1], [2])


def test_a_thread_that_inherits_no_context_is_recorded(backend: Backend, tmp_path: Path) -> None:
    with record(tmp_path / "run.jsonl"):
        thread = threading.Thread(target=_step, args=(backend, Telemetry(), 7))
        thread.start()
        thread.join()
    assert _indices(tmp_path / "run.jsonl") == [7]


def test_recording_sets_no_global_provider(tmp_path: Path) -> None:
    before = trace.get_tracer_provider()
    with record(tmp_path / "run.jsonl") as recording:
        assert trace.get_tracer_provider() is before is not recording.tracer_provider


def test_a_directory_gets_one_file_for_each_recording(backend: Backend, tmp_path: Path) -> None:
    for _ in range(2):
        with record(f"{tmp_path}/new/traces/"):
            _step(backend, Telemetry())
    files = list((tmp_path / "new" / "traces").iterdir())
    assert len(files) == 2
    assert all(file.suffix == ".jsonl" and f"-{os.getpid()}-" in file.name for file in files)
    assert len(read(tmp_path / "new" / "traces")) == 2


@pytest.mark.parametrize("path", ["", "trace.json", "traces.d"])
def test_a_path_that_is_neither_file_nor_directory_says_what_to_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"record\(\) got '.*does not end in \.jsonl\. Give a file such as"):
        record(path)
    assert not list(tmp_path.iterdir())


def test_a_path_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"record\(\) cannot write to .*Give a path"):
        record(tmp_path / "file" / "run.jsonl")


def test_a_file_is_appended_to_even_after_a_torn_line(backend: Backend, tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    with record(path):
        _step(backend, Telemetry(), 1)
    with path.open("a") as file:
        file.write('{"resourceSpans":[{"scopeSp')
    with record(path):
        _step(backend, Telemetry(), 2)
    assert _indices(path) == [1, 2]


@pytest.mark.skipif(not FULL.exists(), reason="needs a device that is always full")
def test_failed_writes_are_counted_and_told_at_close(
    backend: Backend, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "full.jsonl").symlink_to(FULL)
    recording = record(tmp_path / "full.jsonl")
    _step(backend, Telemetry())
    assert recording.failures == 3
    with pytest.warns(RuntimeWarning, match=r"3 span\(s\) could not be written"):
        recording.close()
    assert caplog.records


def test_environment_variables_cost_a_recording_nothing(
    backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "2")
    unsampled = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False).get_tracer("app").start_span("app")
    with record(tmp_path / "run.jsonl"), trace.use_span(unsampled):
        _step(backend, Telemetry(), 5)
    assert read(tmp_path / "run.jsonl")[0].steps[0].tool_names == ("search",)


def test_a_disabled_sdk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    with pytest.warns(RuntimeWarning, match="nothing will be recorded"):
        recording = record(tmp_path / "run.jsonl")
    recording.close()


@pytest.mark.parametrize(("given", "name"), [(None, "pa_middleware"), ("taxi", "taxi")])
def test_the_service_is_named_by_the_environment_or_after_us(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str | None, name: str
) -> None:
    monkeypatch.delenv("OTEL_SERVICE_NAME", raising=False)
    if given is not None:
        monkeypatch.setenv("OTEL_SERVICE_NAME", given)
    with record(tmp_path / "run.jsonl") as recording:
        provider = recording.tracer_provider
    assert provider.resource.attributes["service.name"] == name


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that forks")
def test_a_forked_process_writes_to_a_file_of_its_own(tmp_path: Path) -> None:
    program = f"""
        import os
        from pa_middleware.tracing import Telemetry, record
        def step(index):
            with Telemetry().step(index=index) as span:
                span.decided(decision="pass", reason="above_threshold", score=1.0, threshold=0.0, aggregation="sum",
                             candidate_count=0, selected_index=0, action_kind="final_answer", tool_names=[],
                             tool_call_ids=[])
        with record({str(tmp_path / "run.jsonl")!r}):
            step(0)
            child = os.fork()
            step(2 if child else 1)
            if not child:
                os._exit(0)
            os.waitpid(child, 0)
        print(child)
    """
    child = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True, capture_output=True, text=True)
    assert _indices(tmp_path / "run.jsonl") == [0, 2]
    assert _indices(tmp_path / f"run.{child.stdout.strip()}.jsonl") == [1]
    assert len(read(tmp_path)) == 3


def test_finished_steps_survive_kill_9_and_the_unfinished_one_keeps_its_candidates(tmp_path: Path) -> None:
    program = f"""
        import os, signal
        from pa_middleware.scoring.scorer import CandidateScore
        from pa_middleware.tracing import Telemetry, record
        record({str(tmp_path / "run.jsonl")!r})
        anchor = None
        for index in range(4):
            with Telemetry().step(index=index, anchor=anchor) as span:
                span.candidate(0, CandidateScore(-1.0, -2.0, -1.0, (-1.0,)), label="fail")
                if index == 3:
                    os.kill(os.getpid(), signal.SIGKILL)
                span.decided(decision="flag", reason="below_threshold", score=-1.0, threshold=0.0, aggregation="sum",
                    candidate_count=1, selected_index=0, action_kind="message", tool_names=(), tool_call_ids=())
            anchor = span.anchor
    """
    child = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False)
    assert child.returncode == -signal.SIGKILL
    (run,) = read(tmp_path / "run.jsonl")
    assert [(step.index, step.decision) for step in run.steps] == [(0, "flag"), (1, "flag"), (2, "flag"), (3, "")]
    assert run.steps[3].candidates[0].score == -1.0
