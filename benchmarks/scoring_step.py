"""One step behind a prompt that was read: candidates with a common beginning, and scoring next to generating."""

from __future__ import annotations

import copy
import statistics
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.scoring_models import ACTION, MOST_CANDIDATES, OBSERVATION, Tokens, queries
from benchmarks.scoring_timing import Pair, Ratios, cpu_seconds, wall_seconds
from pa_middleware.scoring.cache_names import cache_argument
from pa_middleware.scoring.reading import Ids

if TYPE_CHECKING:
    from transformers import PreTrainedModel

GENERATED_AT = 2_110
"""Prompt tokens at which generating is measured."""
TRIE_AT = 3_000


def trie(pair: Pair, tokens: Tokens, repeats: int) -> Ratios:
    """Candidates with a common first half over unrelated ones; the prompt is read before each and grows a little."""
    reading = pair.policy.open()
    prompt = tokens.draw(TRIE_AT)
    ratios = []
    for number in range(repeats + 1):
        seconds = {}
        for common in (0, ACTION // 2) if number % 2 else (ACTION // 2, 0):
            prompt += tokens.draw(8)
            reading.read(prompt)
            asked = queries(prompt, tokens.candidates(MOST_CANDIDATES, common))
            seconds[common], _ = cpu_seconds(lambda asked=asked: pair.policy.answer(asked, reading))  # type: ignore[misc]
        ratios.append(seconds[ACTION // 2] / seconds[0])
    print(f"trie: prompt of {TRIE_AT} to {len(prompt)} tokens; ratios {', '.join(f'{r:.2f}' for r in ratios[1:])}")
    return {"trie_n8": statistics.median(ratios[1:])}


@torch.inference_mode()
def generate(model: PreTrainedModel, new: Ids, cache: Any) -> Ids:
    """An action of likeliest tokens behind what is cached and new, each forwarded, with transformers' own cache."""
    ids = torch.tensor([new])
    action = []
    for _ in range(ACTION + 1):
        logits = model(input_ids=ids, **cache_argument(model, cache), use_cache=True, logits_to_keep=1).logits
        ids = logits[:, -1].argmax(dim=-1, keepdim=True)
        action.append(int(ids))
    return tuple(action[:ACTION])


def overhead(pair: Pair, tokens: Tokens, repeats: int) -> Ratios:
    """Scoring a step over generating its action; the conversation before it was read, and is cached, by both."""
    from transformers import DynamicCache

    before = tokens.draw(GENERATED_AT - OBSERVATION)
    cache = DynamicCache(config=pair.bare.config)
    with torch.inference_mode():
        pair.bare(input_ids=torch.tensor([before]), **cache_argument(pair.bare, cache), logits_to_keep=1)
    policy, reference, ahead = pair.policy.open(), pair.reference.open(), pair.reference.open()
    columns: dict[str, list[float]] = {}
    for number in range(repeats + 1):
        for reading in (policy, reference, ahead):
            reading.read(before)
        new = tokens.draw(OBSERVATION)
        prompt = before + new
        times: dict[str, float] = {}

        def alone(new: Ids = new, times: dict[str, float] = times) -> Ids:
            mine = copy.deepcopy(cache)
            started = time.perf_counter()
            times["generate"], action = cpu_seconds(lambda: generate(pair.bare, new, mine))
            times["generate_wall"] = time.perf_counter() - started
            return action

        def overlapped(new: Ids = new, prompt: Ids = prompt, times: dict[str, float] = times) -> None:
            mine = copy.deepcopy(cache)

            def work() -> None:
                thread = threading.Thread(target=ahead.read, args=(prompt,))
                thread.start()
                action = generate(pair.bare, new, mine)
                thread.join()
                asked = queries(prompt, [action])
                times["rest"], _ = cpu_seconds(lambda: pair.reference.answer(asked, ahead))

            times["overlapped_wall"], _ = wall_seconds(work)

        if number % 2:
            action = alone()
            overlapped()
        else:
            overlapped()
            action = alone()
        asked = queries(prompt, [action])
        times["policy"], _ = cpu_seconds(lambda asked=asked: pair.policy.answer(asked, policy))  # type: ignore[misc]
        times["reference"], _ = cpu_seconds(lambda asked=asked: pair.reference.answer(asked, reference))  # type: ignore[misc]
        if number:  # the first is warming up
            for name, seconds in times.items():
                columns.setdefault(name, []).append(seconds)
    print(f"overhead at T = {GENERATED_AT}, medians in seconds:")
    for name, column in columns.items():
        print(f"  {name:16} {statistics.median(column):.2f}  ({min(column):.2f} to {max(column):.2f})")

    def median(ratio: Callable[[dict[str, float]], float]) -> float:
        steps = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        return statistics.median(ratio(step) for step in steps)

    return {
        "overhead_two": median(lambda step: (step["policy"] + step["reference"]) / step["generate"]),
        "overhead_reference": median(lambda step: step["reference"] / step["generate"]),
        "overhead_overlapped": median(lambda step: step["rest"] / step["generate"]),
        "overhead_overlapped_wall": median(lambda step: step["overlapped_wall"] / step["generate_wall"] - 1),
    }
