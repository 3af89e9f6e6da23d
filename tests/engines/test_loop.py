"""A loop in a thread of its own runs what it is given, where it was given, and ends when it should."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from contextvars import ContextVar

import pytest

from pa_middleware.engines.loop import LoopThread

_whose = ContextVar("_whose", default="nobody's")


@pytest.fixture
def thread() -> Iterator[LoopThread]:
    thread = LoopThread()
    yield thread
    thread.close()


async def _answer() -> int:
    await asyncio.sleep(0)
    return 42


async def _where() -> threading.Thread:
    return threading.current_thread()


class _Forever:
    """Work that ends only by being cancelled."""

    def __init__(self) -> None:
        self.begun, self.cancelled = threading.Event(), threading.Event()

    async def run(self) -> None:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()


def test_no_thread_runs_before_there_is_work_and_one_runs_all_of_it(thread: LoopThread) -> None:
    before = threading.active_count()
    LoopThread().close()
    assert threading.active_count() == before
    first, second = (thread.submit(_where()).result() for _ in range(2))
    assert first is second is not threading.current_thread()
    assert first.daemon


def test_work_runs_in_a_copy_of_its_callers_context(thread: LoopThread) -> None:
    async def say() -> str:
        whose = _whose.get()
        _whose.set("the work's")
        return whose

    token = _whose.set("the caller's")
    try:
        assert thread.submit(say()).result() == "the caller's"
        assert _whose.get() == "the caller's"
    finally:
        _whose.reset(token)
    assert thread.submit(say()).result() == "nobody's"


def test_cancelling_the_future_cancels_the_work(thread: LoopThread) -> None:
    work = _Forever()
    future = thread.submit(work.run())
    assert work.begun.wait(10)
    assert future.cancel()
    assert work.cancelled.wait(10)


def test_an_error_is_raised_where_the_result_is_asked_for(thread: LoopThread) -> None:
    async def fail() -> None:
        raise LookupError("none")

    with pytest.raises(LookupError, match="none"):
        thread.submit(fail()).result()
    assert thread.submit(_answer()).result() == 42


def test_closing_cancels_what_runs_and_what_that_leaves_behind_and_runs_the_last_thing_after_it(
    thread: LoopThread,
) -> None:
    order = []
    work = _Forever()

    async def leave_something_behind() -> None:
        try:
            await work.run()
        finally:
            left.append(asyncio.ensure_future(after()))

    async def after() -> None:
        await asyncio.Event().wait()

    async def last() -> None:
        order.append(left[0].cancelled())

    left: list[asyncio.Task[None]] = []
    future = thread.submit(leave_something_behind())
    running = thread.submit(_where()).result()
    assert work.begun.wait(10)
    thread.close(last())
    assert order == [True]
    assert not running.is_alive()
    with pytest.raises(CancelledError):
        future.result()
    thread.close(last())
    assert order == [True]


def test_what_the_last_thing_raises_is_raised_and_the_thread_has_ended(thread: LoopThread) -> None:
    async def fail() -> None:
        raise LookupError("none")

    running = thread.submit(_where()).result()
    with pytest.raises(LookupError):
        thread.close(fail())
    assert not running.is_alive()


def test_a_closed_one_takes_no_work(thread: LoopThread) -> None:
    thread.close()
    with pytest.raises(RuntimeError, match="closed; make a new one"):
        thread.submit(_answer())


def test_it_cannot_be_closed_from_its_own_thread(thread: LoopThread) -> None:
    async def close() -> None:
        thread.close(_answer())

    with pytest.raises(RuntimeError, match="close it from another"):
        thread.submit(close()).result()
    assert thread.submit(_answer()).result() == 42


def test_without_a_thread_to_be_had_work_is_refused_and_later_work_is_not(
    thread: LoopThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start"):
            thread.submit(_answer())
    assert thread.submit(_answer()).result() == 42


def test_one_that_nobody_has_any_more_ends_its_thread() -> None:
    thread = LoopThread()
    work = _Forever()
    future = thread.submit(work.run())
    running = thread.submit(_where()).result()
    del thread
    running.join(10)
    assert not running.is_alive()
    assert future.cancelled()


def test_a_forked_child_starts_its_own_and_the_parent_keeps_its_own(thread: LoopThread) -> None:
    held = thread.submit(_Forever().run())
    child = os.fork()
    if not child:
        try:
            os._exit(0 if thread.submit(_answer()).result(10) == 42 else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert thread.submit(_answer()).result(10) == 42
    assert not held.done()


def test_a_program_that_closes_nothing_ends_all_the_same_and_in_silence() -> None:
    program = (
        "import asyncio\n"
        "from pa_middleware.engines.loop import LoopThread\n"
        "async def forever():\n"
        "    await asyncio.Event().wait()\n"
        "thread = LoopThread()\n"
        "thread.submit(asyncio.to_thread(int)).result()\n"
        "thread.submit(forever())\n"
    )
    ran = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", program],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ran.returncode, ran.stderr) == (0, "")


def test_work_given_from_many_threads_is_all_done(thread: LoopThread) -> None:
    futures: list[Future[int]] = []
    givers = [threading.Thread(target=lambda: futures.append(thread.submit(_answer()))) for _ in range(16)]
    for giver in givers:
        giver.start()
    for giver in givers:
        giver.join()
    assert [future.result() for future in futures] == [42] * 16
