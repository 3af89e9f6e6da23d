"""How many steps a second a pair on engines scores, next to one conversation alone and to what its engines can do.

    python -m benchmarks.engine_load --policy vllm:MODEL@URL --reference vllm:MODEL@URL --tokenizer FOLDER [--json FILE]
    python -m benchmarks.engine_load --vllm build/vllm/bin/python [--json FILE]

The second form starts two servers itself, with the demo's taxi pair.

Agents go through their conversations at the same time, each step after the one before. A prompt begins with a text that
all conversations share, and grows by an observation and the action that was scored. `raw` sends the very requests that
the pair would send, of other conversations of the same size, with httpx and nothing around it: what the engines can do
at that load. `alone` is the pair with one conversation at a time. All three take turns; figures are medians over the
rounds. Latencies are of one step, from asking to the score.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import numpy as np
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from pa_demos.taxi.episode import PAIR

from benchmarks.engine_load_raw import Raw
from benchmarks.engine_serving import vllm
from pa_middleware import Step
from pa_middleware.engines.pair import EnginePair
from pa_middleware.engines.source import LogProbSource
from pa_middleware.engines.spec import source_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Conversation = list[Step]
Ask = Callable[[Step], Awaitable[object]]

TIMEOUT = 600.0
"""Seconds for a request: an engine that is slow here is to be measured, not given up."""


def note(text: str) -> None:
    """Say how far the benchmark is."""
    print(text, file=sys.stderr, flush=True)


class Conversations:
    """An endless supply of conversations of one size, no two alike behind the text that all begin with."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, options: argparse.Namespace) -> None:
        self._tokenizer, self._options = tokenizer, options
        self._random = random.Random(0)  # noqa: S311
        texts = (str(tokenizer.decode([number])).strip() for number in range(len(tokenizer)))
        self._words = sorted({text for text in texts if text.isascii() and text.isalpha()})
        if len(self._words) < 2:
            raise SystemExit("the tokenizer has no words to write conversations with")
        self._start = SystemMessage(self._text(options.start))
        self._count = 0

    def draw(self, count: int) -> list[Conversation]:
        """So many new ones."""
        return [self._one() for _ in range(count)]

    def _one(self) -> Conversation:
        self._count += 1
        history: list[BaseMessage] = [self._start]
        steps = []
        for _ in range(self._options.steps):
            history.append(HumanMessage(self._text(self._options.observation)))
            action = AIMessage(self._text(self._options.action))
            steps.append(Step(tuple(history), [action], conversation=f"conversation {self._count}"))
            history.append(action)
        return steps

    def _text(self, tokens: int) -> str:
        words = self._random.choices(self._words, k=tokens)
        while len(self._tokenizer.encode(" ".join(words), add_special_tokens=False)) > tokens and len(words) > 1:
            del words[-max(1, len(words) // 20) :]
        return " ".join(words)


@dataclass(frozen=True, slots=True)
class Load:
    """What came of some conversations at once."""

    seconds: float
    latencies: list[float]
    """Seconds of every step."""

    @property
    def rate(self) -> float:
        """Steps a second."""
        return len(self.latencies) / self.seconds


async def load(conversations: Sequence[Conversation], ask: Ask) -> Load:
    """All of them at the same time, the steps of each one after the other."""
    latencies = []

    async def go_through(steps: Conversation) -> None:
        for step in steps:
            started = time.perf_counter()
            await ask(step)
            latencies.append(time.perf_counter() - started)

    started = time.perf_counter()
    await asyncio.gather(*map(go_through, conversations))
    return Load(time.perf_counter() - started, latencies)


async def measure(
    pair: EnginePair, raw: Raw, conversations: Conversations, options: argparse.Namespace
) -> dict[int, dict[str, list[Load]]]:
    """Of each number of conversations and each way, what came of every round."""

    async def ask(step: Step) -> object:
        return await asyncio.wrap_future(pair.submit([step]))

    async def bare(count: int) -> Load:
        drawn = conversations.draw(count)
        await raw.prepare(drawn)
        return await load(drawn, raw.ask)

    async def alone() -> Load:
        each = [await load(conversations.draw(1), ask) for _ in range(options.alone)]
        return Load(sum(one.seconds for one in each), [value for one in each for value in one.latencies])

    await load(conversations.draw(1), ask)  # the engines have read what all conversations begin with
    await bare(1)
    found: dict[int, dict[str, list[Load]]] = {}
    for number in range(options.rounds):
        for count in options.conversations:
            note(f"round {number + 1} of {options.rounds}: {count} conversations")
            ways: list[tuple[str, Callable[[], Awaitable[Load]]]] = [
                ("alone", alone),
                ("pair", lambda count=count: load(conversations.draw(count), ask)),  # type: ignore[misc]
                ("raw", lambda count=count: bare(count)),  # type: ignore[misc]
            ]
            for way, work in ways if number % 2 == 0 else reversed(ways):
                found.setdefault(count, {}).setdefault(way, []).append(await work())
            note(show(count, figures(found[count])))
    return found


def figures(loads: dict[str, list[Load]]) -> dict[str, float]:
    """Medians over the rounds, of what was measured side by side."""
    pair, raw, alone = (loads[way] for way in ("pair", "raw", "alone"))
    answer = {"steps_per_second": statistics.median(each.rate for each in pair)}
    answer["raw_steps_per_second"] = statistics.median(each.rate for each in raw)
    answer["over_raw"] = statistics.median(ours.rate / bare.rate for ours, bare in zip(pair, raw, strict=True))
    answer["over_alone"] = statistics.median(ours.rate / one.rate for ours, one in zip(pair, alone, strict=True))
    for way, each in (("", pair), ("raw_", raw)):
        for percent in (50, 95, 99):
            values = [1000 * float(np.percentile(one.latencies, percent)) for one in each]
            answer[f"{way}p{percent}_ms"] = statistics.median(values)
    return answer


def show(count: int, each: dict[str, float]) -> str:
    """A row of the table."""
    latencies = "/".join(f"{each[f'p{percent}_ms']:.0f}" for percent in (50, 95, 99))
    raw = "/".join(f"{each[f'raw_p{percent}_ms']:.0f}" for percent in (50, 95, 99))
    return (
        f"{count:>13} {each['steps_per_second']:>8.1f} {latencies:>20} {each['over_alone']:>10.2f} "
        f"{each['raw_steps_per_second']:>12.1f} {raw:>20} {each['over_raw']:>9.2f}"
    )


HEAD = (
    f"{'conversations':>13} {'steps/s':>8} {'p50/p95/p99 ms':>20} {'over alone':>10} {'raw steps/s':>12} "
    f"{'p50/p95/p99 ms':>20} {'over raw':>9}"
)


async def run(
    pair: EnginePair, sources: Sequence[LogProbSource], options: argparse.Namespace
) -> dict[int, dict[str, float]]:
    """The figures of each number of conversations."""
    async with AsyncExitStack() as stack:
        # Servers close idle connections after 5 s, under a request that just left if need be.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=4.0)
        http = await stack.enter_async_context(httpx.AsyncClient(timeout=TIMEOUT, limits=limits, trust_env=False))
        conversations = Conversations(pair.tokenizer, options)
        found = await measure(pair, Raw(pair, sources, http), conversations, options)
    return {count: figures(loads) for count, loads in found.items()}


def measured(options: argparse.Namespace) -> dict[int, dict[str, float]]:
    """The figures of the engines that are named."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(options.tokenizer)
    policy, reference = (source_of(spec, timeout=TIMEOUT) for spec in (options.policy, options.reference))
    with EnginePair(policy, reference, tokenizer, steps_at_once=options.steps_at_once) as pair:
        for served in pair.served:
            print(f"{served.model}: {served.way}")
        return asyncio.run(run(pair, (policy, reference), options))


def taxi_on_vllm(python: str, stack: ExitStack) -> tuple[str, str, str]:
    """Names of the demo's policy and reference on a server each, and the folder of their tokenizer."""
    place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    names = []
    for role in ("policy", "reference"):
        (place / role).mkdir()
        names.append(f"vllm:{role}@{stack.enter_context(vllm(python, PAIR / role, role, place / role))}")
    return names[0], names[1], str(PAIR / "policy")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n", 1)[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--policy", help="KIND:MODEL@URL, with KIND vllm, sglang or openai")
    parser.add_argument("--reference", help="the same")
    parser.add_argument("--tokenizer", help="folder or hub name of the policy's tokenizer")
    parser.add_argument("--vllm", help="in place of these three: Python of an environment with vLLM")
    parser.add_argument("--conversations", type=_numbers, default="1,8,64,256", help="how many go on at once")
    parser.add_argument("--steps", type=int, default=6, help="of each conversation")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--alone", type=int, default=2, help="conversations that are measured alone, in each turn")
    parser.add_argument("--start", type=int, default=1000, help="tokens that all conversations begin with, at most")
    parser.add_argument("--observation", type=int, default=150, help="tokens of an observation, at most")
    parser.add_argument("--action", type=int, default=60, help="tokens of an action, at most")
    parser.add_argument("--steps-at-once", type=int, default=64, help="as EnginePair takes it")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    named = options.policy, options.reference, options.tokenizer
    if all(named) == bool(options.vllm) or (options.vllm and any(named)):
        parser.error("give --policy, --reference and --tokenizer, or --vllm alone")
    with ExitStack() as stack:
        if options.vllm:
            options.policy, options.reference, options.tokenizer = taxi_on_vllm(options.vllm, stack)
        found = measured(options)
    print(HEAD, *(show(count, each) for count, each in found.items()), sep="\n")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def _numbers(text: str) -> list[int]:
    numbers = [int(part) for part in text.split(",")]
    if min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}; allowed: whole numbers from 1 on, such as 1,8,64")
    return numbers


if __name__ == "__main__":
    main()
