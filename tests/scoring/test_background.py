from __future__ import annotations

import os
import threading

import pytest

from pa_middleware.scoring.background import Background

PATIENCE = 30


class _Gate:
    """Work that holds the background's thread until it is let go."""

    def __init__(self) -> None:
        self.entered, self.open = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.entered.set()
        assert self.open.wait(PATIENCE)


def test_only_the_latest_of_each_kind_is_done_and_the_oldest_kind_first() -> None:
    background, gate = Background(), _Gate()
    done: list[str] = []
    background.run("gate", gate)
    assert gate.entered.wait(PATIENCE)
    for kind, name in (("a", "a1"), ("b", "b1"), ("a", "a2"), ("c", "c1"), ("b", "b2"), ("a", "a3")):
        background.run(kind, lambda name=name: done.append(name))  # type: ignore[misc]
    gate.open.set()
    background.wait()
    assert done == ["a3", "b2", "c1"]


def test_what_runs_already_is_not_replaced() -> None:
    background, gate = Background(), _Gate()
    done: list[str] = []
    background.run("a", gate)
    assert gate.entered.wait(PATIENCE)
    background.run("a", lambda: done.append("second"))
    gate.open.set()
    background.wait()
    assert done == ["second"]


def test_a_failure_stops_nothing_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    background, gate = Background(), _Gate()
    done: list[str] = []

    def fail() -> None:
        raise ZeroDivisionError("no head start")

    background.run("gate", gate)
    assert gate.entered.wait(PATIENCE)
    background.run("a", fail)
    background.run("b", lambda: done.append("b"))
    with caplog.at_level("DEBUG", logger="pa_middleware"):
        gate.open.set()
        background.wait()
    assert done == ["b"]
    assert "no head start" in caplog.text


def test_run_returns_before_the_work_is_done() -> None:
    background, gate = Background(), _Gate()
    background.run("a", gate)  # would wait for the gate if the work were done here
    gate.open.set()
    background.wait()
    assert gate.entered.is_set()


def test_its_thread_ends_with_the_work_and_begins_again_with_more() -> None:
    background = Background()
    threads: list[threading.Thread] = []
    background.wait()
    for _ in range(2):
        background.run("a", lambda: threads.append(threading.current_thread()))
        background.wait()
        assert not threads[-1].is_alive()
    assert len(threads) == 2
    assert threading.main_thread() not in threads


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_has_a_thread_of_its_own() -> None:
    background, gate = Background(), _Gate()
    background.run("gate", gate)
    assert gate.entered.wait(PATIENCE)
    background.run("waiting", lambda: None)
    child = os.fork()
    if child == 0:
        try:
            done = threading.Event()
            background.run("a", done.set)
            os._exit(0 if done.wait(PATIENCE) else 2)
        finally:
            os._exit(1)
    gate.open.set()
    background.wait()
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
