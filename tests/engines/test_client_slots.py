"""Which calls the client sends: so many at once, and none to an engine that failed again and again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from engines.calling import WELL, get, using
from engines.scripted import Holding, says, scripted

from pa_middleware.engines.breaker import Breaker
from pa_middleware.engines.client import Client
from pa_middleware.engines.errors import EngineError, EngineRefusedError, EngineUnavailableError


def test_no_more_requests_run_at_once_than_allowed_and_none_is_lost() -> None:
    hold = Holding()

    async def work(client: Client) -> list[Any]:
        tasks = [asyncio.create_task(client.get("/x")) for _ in range(7)]
        for _ in range(2):
            await asyncio.to_thread(hold.arrived.acquire)
        hold.released.set()
        return await asyncio.gather(*tasks)

    with scripted(hold) as server:
        assert using(Client(server.url, in_flight=2), work) == [WELL] * 7
    assert hold.most == 2


def test_more_calls_than_may_run_and_wait_fail_at_once() -> None:
    hold = Holding()

    async def work(client: Client) -> None:
        tasks = [asyncio.create_task(client.get("/x")) for _ in range(3)]
        await asyncio.to_thread(hold.arrived.acquire)
        with pytest.raises(EngineUnavailableError, match="overloaded: 3 calls run or wait"):
            await client.get("/x")
        hold.released.set()
        assert await asyncio.gather(*tasks) == [WELL] * 3
        assert await client.get("/x") == WELL

    with scripted(hold) as server:
        using(Client(server.url, in_flight=1, waiting=2), work)
        assert len(server.asked) == 4


def test_a_cancelled_call_hangs_up_and_frees_its_slot() -> None:
    hold = Holding()

    async def work(client: Client) -> None:
        task = asyncio.create_task(client.get("/x"))
        await asyncio.to_thread(hold.arrived.acquire)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(hold.hung_up.wait, 30)
        assert await client.get("/x") == WELL

    with scripted(hold, says(200)) as server:
        using(Client(server.url, in_flight=1, waiting=0), work)


def test_calls_fail_at_once_while_the_breaker_is_open_and_say_for_how_long() -> None:
    now = [0.0]

    async def work(client: Client) -> None:
        for _ in range(2):
            with pytest.raises(EngineUnavailableError, match="status 500"):
                await client.get("/x")
        now[0] = 4.0
        with pytest.raises(EngineUnavailableError, match=r"failed again and again; it is asked again in 6\.0 s"):
            await client.get("/x")
        now[0] = 10.0
        assert [await client.get("/x") for _ in range(2)] == [WELL] * 2

    breaker = Breaker(failures=2, cooldown=10.0, clock=lambda: now[0])
    with scripted(says(500), says(500), says(200)) as server:
        using(Client(server.url, attempts=1, breaker=breaker), work)
        assert len(server.asked) == 4


def test_calls_that_waited_when_the_breaker_opened_are_not_sent() -> None:
    async def work(client: Client) -> list[Any]:
        return await asyncio.gather(*(client.get("/x") for _ in range(5)), return_exceptions=True)

    with scripted(says(500)) as server:
        results = using(Client(server.url, attempts=1, in_flight=1, breaker=Breaker(failures=2)), work)
        assert len(server.asked) == 2
    assert [isinstance(result, EngineUnavailableError) for result in results] == [True] * 5


@pytest.mark.parametrize(
    ("deed", "kind"), [(says(404), EngineRefusedError), (says(302), EngineRefusedError), (says(200, b"x"), EngineError)]
)
def test_an_engine_that_refuses_is_there_and_opens_no_breaker(deed: Any, kind: type[Exception]) -> None:
    async def work(client: Client) -> Any:
        with pytest.raises(kind):
            await client.get("/x")
        return await client.get("/x")

    with scripted(deed, says(200)) as server:
        assert using(Client(server.url, breaker=Breaker(failures=1)), work) == WELL


def test_a_cancelled_trial_lets_the_next_call_be_the_trial() -> None:
    hold, now = Holding(), [0.0]

    async def work(client: Client) -> None:
        with pytest.raises(EngineUnavailableError):
            await client.get("/x")
        now[0] = 10.0
        trial = asyncio.create_task(client.get("/x"))
        await asyncio.to_thread(hold.arrived.acquire)
        with pytest.raises(EngineUnavailableError, match="failed again and again"):
            await client.get("/x")
        trial.cancel()
        with pytest.raises(asyncio.CancelledError):
            await trial
        assert await client.get("/x") == WELL

    breaker = Breaker(failures=1, cooldown=10.0, clock=lambda: now[0])
    with scripted(says(500), hold, says(200)) as server:
        using(Client(server.url, attempts=1, breaker=breaker), work)
        assert len(server.asked) == 3


def test_a_call_cut_off_with_its_loop_keeps_neither_slot_nor_trial() -> None:
    """As in a forked child, where nothing of the parent's loop ever runs on."""
    hold, now = Holding(), [0.0]
    breaker = Breaker(failures=1, cooldown=10.0, clock=lambda: now[0])
    with scripted(says(500), hold, says(200)) as server, asyncio.Runner() as stands_still:
        client = Client(server.url, attempts=1, in_flight=1, waiting=0, breaker=breaker)
        with pytest.raises(EngineUnavailableError):
            get(client)
        now[0] = 10.0
        stands_still.get_loop().create_task(client.get("/x"))
        stands_still.run(asyncio.to_thread(hold.arrived.acquire))
        assert get(client) == WELL
