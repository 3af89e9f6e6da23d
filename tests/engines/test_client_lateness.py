"""Who is late: what a call waits for ends in time, and counts against the engine only if that had it for long enough.

The clock is virtual, so every moment is exact.
"""

from __future__ import annotations

import asyncio

import httpx
import pytest
from engines.calling import WELL
from engines.imagined import NEVER, Imagined, after
from engines.virtual_time import run

from pa_middleware.engines.breaker import Breaker
from pa_middleware.engines.errors import EngineError, EngineRefusedError, EngineUnavailableError
from pa_middleware.engines.together import together


def _now() -> float:
    return asyncio.get_running_loop().time()


def _breaker(failures: int = 1) -> Breaker:
    """With the clock of the loop that runs."""
    return Breaker(failures=failures, cooldown=10.0, clock=_now)


async def _given_up(client: Imagined, seconds: float) -> None:
    """A call whose caller has so much patience."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(seconds):
            await client.get("/x")


async def _is_left_alone(client: Imagined) -> bool:
    """Whether the breaker is open."""
    asked = client.asked
    with pytest.raises((TimeoutError, EngineUnavailableError)):
        async with asyncio.timeout(0.001):
            await client.get("/x")
    return client.asked == asked


def test_a_server_that_stalls_has_as_long_as_the_timeout() -> None:
    async def work() -> None:
        client = Imagined(NEVER, timeout=3.0)
        with pytest.raises(EngineUnavailableError, match=r"/x gave no answer within 3 s"):
            await client.get("/x")
        assert (_now(), client.asked) == (3.0, 1)

    run(work())


def test_all_attempts_together_have_as_long_as_the_timeout() -> None:
    async def work() -> None:
        client = Imagined(after(0.0, 500), timeout=30.0, attempts=1_000_000, chance=lambda: 1.0)
        with pytest.raises(EngineUnavailableError, match="status 500"):
            await client.get("/x")
        assert 25.0 < _now() <= 30.0

    run(work())


def test_waiting_for_a_slot_counts_towards_the_timeout() -> None:
    async def work() -> None:
        client = Imagined(NEVER, timeout=3.0, in_flight=1)
        ends = await asyncio.gather(*(client.get("/x") for _ in range(2)), return_exceptions=True)
        assert [type(end) for end in ends] == [EngineUnavailableError] * 2
        assert (_now(), client.asked) == (3.0, 1)

    run(work())


def test_lateness_opens_the_breaker() -> None:
    async def work() -> None:
        client = Imagined(NEVER, timeout=3.0, breaker=_breaker())
        with pytest.raises(EngineUnavailableError, match="gave no answer"):
            await client.get("/x")
        with pytest.raises(EngineUnavailableError, match=r"failed again and again; it is asked again in 10\.0 s"):
            await client.get("/x")
        assert client.asked == 1

    run(work())


@pytest.mark.parametrize(("timeout", "enough"), [(30.0, 1.0), (2.0, 1.0), (0.5, 0.25)])
def test_a_call_that_its_caller_gives_up_counts_once_the_engine_had_it_for_long_enough(
    timeout: float, enough: float
) -> None:
    async def work() -> None:
        client = Imagined(NEVER, timeout=timeout, breaker=_breaker(failures=2))
        for _ in range(5):
            await _given_up(client, enough * 0.99)
        assert not await _is_left_alone(client)
        for _ in range(2):
            await _given_up(client, enough)
        assert await _is_left_alone(client)

    run(work())


def test_an_engine_that_is_slower_than_the_slots_are_many_is_well_whoever_waits_too_long() -> None:
    async def work() -> None:
        client = Imagined(after(0.3), timeout=1.0, in_flight=8, breaker=_breaker())
        ends = await asyncio.gather(*(client.get("/x") for _ in range(40)), return_exceptions=True)
        assert ends.count(WELL) == 24
        assert [type(end) for end in ends[24:]] == [EngineUnavailableError] * 16
        assert client.asked == 32, "eight were sent too late"
        assert await client.get("/x") == WELL

    run(work())


def test_calls_that_are_given_up_because_of_what_another_was_answered_say_nothing_of_the_engine() -> None:
    async def refuse_one(request: httpx.Request) -> httpx.Response:
        refused = request.url.path == "/bad"
        return await after(2.0 if refused else 1e9, 400)(request)

    async def work() -> None:
        client = Imagined(refuse_one, breaker=_breaker(failures=2))
        with pytest.raises(EngineRefusedError):
            await together(client.get("/bad"), *(client.get("/x") for _ in range(15)))
        assert not await _is_left_alone(client)
        for _ in range(2):
            await _given_up(client, 1.5)
        assert await _is_left_alone(client)

    run(work())


def test_waits_between_attempts_are_the_engines_time() -> None:
    async def work() -> None:
        client = Imagined(after(0.0, 503, Retry_After="20"), breaker=_breaker())
        await _given_up(client, 0.9)
        assert not await _is_left_alone(client)
        await _given_up(client, 1.1)
        assert await _is_left_alone(client)

    run(work())


def test_a_trial_that_is_given_up_late_opens_the_breaker_again_and_one_given_up_early_frees_its_place() -> None:
    async def work() -> None:
        client = Imagined(NEVER, breaker=_breaker())
        await _given_up(client, 1.0)
        await asyncio.sleep(10.0)
        await _given_up(client, 0.5)
        assert not await _is_left_alone(client), "the next call is the trial"
        await _given_up(client, 1.0)
        assert await _is_left_alone(client)
        assert client.asked == 4

    run(work())


def test_as_many_calls_may_wait_as_many_steps_of_many_candidates_make() -> None:
    async def work() -> None:
        client = Imagined(after(0.01))
        ends = await asyncio.gather(*(client.get("/x") for _ in range(64 * 18)))
        assert ends.count(WELL) == 64 * 18

    run(work())


@pytest.mark.parametrize("kind", [httpx.LocalProtocolError, httpx.UnsupportedProtocol])
def test_a_request_that_http_does_not_have_is_tried_once_and_says_nothing_of_the_engine(
    kind: type[httpx.TransportError],
) -> None:
    async def refuse(request: httpx.Request) -> httpx.Response:
        raise kind("no such thing")

    async def work() -> None:
        client = Imagined(refuse, breaker=_breaker())
        for _ in range(2):
            with pytest.raises(EngineError, match=rf"/x cannot be asked this, now or later \({kind.__name__}: no such"):
                await client.get("/x")
        assert client.asked == 2, "once for each call"

    run(work())
