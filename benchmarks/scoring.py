"""What the scoring engine costs, next to the official arithmetic, to a bare forward, and to generating the actions.

    OMP_WAIT_POLICY=PASSIVE python -m benchmarks.scoring [--model smollm2|tiny] [--only live,floor,...] [--json FILE]

Without that variable threads that wait for each other spin, which counts as CPU time, and the more of it the more else
runs on the machine.

A trajectory of 1,000 tokens of system message and tools, then steps of 150 observation and 60 action tokens, is scored
step by step. All that is compared takes turns in one process. Times are CPU seconds unless they say otherwise; what
was not run at every step is printed as such.

live       official arithmetic used live / ours, whole run, 1, 4 and 8 candidates; ours live with two models / the
           official offline pass over the finished trajectory
floor      ours / one forward over the new tokens with the cache in place and the head on the scored rows
trie       8 candidates with a common first half / 8 unrelated ones, behind a prompt that is read already
memory     peak memory of a step above weights and cache / of the official arithmetic at the same length
overhead   scoring a step / generating its action with the same model: with both models, with the reference alone, and
           what is left of that if the reference read the observation meanwhile; `wall` is what the latter adds on the
           clock, where reading and generating compete for the same cores
"""

from __future__ import annotations

import argparse
import copy
import ctypes
import gc
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from benchmarks.scoring_models import (
    ACTION,
    MOST_CANDIDATES,
    OBSERVATION,
    START,
    STEP,
    Floor,
    Moment,
    Tokens,
    load_pair,
    official,
    queries,
    trajectory,
)
from pa_middleware.scoring.cache_names import cache_argument
from pa_middleware.scoring.causal_lm import CausalLM
from pa_middleware.scoring.reading import Ids

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Result = TypeVar("Result")
Ratios = dict[str, float]

PARTS = ("memory", "trie", "overhead", "live", "floor")
COUNTS = (1, 4, 8)
"""Candidates a step."""
LONG = START + 29 * STEP + ACTION
"""Tokens at which memory is measured."""
GENERATED_AT = 2_110
"""Prompt tokens at which generating is measured."""
TRIE_AT = 3_000

AT_LEAST = {"live_n1": 15.0, "live_n4": 32.0, "live_n8": 40.0}
AT_MOST = {
    "live_over_offline": 1.0,
    "floor_n1": 1.08,
    "floor_n8": 1.08,
    "trie_n8": 0.65,
    "memory_step": 1 / 40,
    "overhead_two": 0.45,
    "overhead_reference": 0.25,
    "overhead_overlapped": 0.12,
    "equality": 1e-4,
}


@dataclass(frozen=True, slots=True)
class Pair:
    """Two models, each bare and as ours."""

    bare: PreTrainedModel
    policy: CausalLM
    reference: CausalLM


def cpu_seconds(work: Callable[[], Result]) -> tuple[float, Result]:
    """CPU seconds that some work takes in all threads, and its result."""
    started = time.process_time()
    result = work()
    return time.process_time() - started, result


def wall_seconds(work: Callable[[], Result]) -> tuple[float, Result]:
    """Seconds on the clock that some work takes, and its result."""
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def note(text: str) -> None:
    """Say how far the benchmark is."""
    print(text, file=sys.stderr, flush=True)


# Whole runs


@dataclass(slots=True)
class Run:
    """CPU seconds of one walk along the trajectory."""

    ours: dict[str, list[float]] = field(default_factory=dict)
    """Of each step: `n1`, `n4` and `n8` the policy's with so many candidates, `reference` the reference's with one."""
    floor: dict[str, list[float]] = field(default_factory=dict)
    official: dict[int, float] = field(default_factory=dict)
    """By length, of one model and one candidate."""
    offline: float = 0.0
    """One model."""
    equality: float = 0.0
    """The largest difference of a token's log-prob, ours against official."""

    def differ(self, ours: Sequence[float] | np.ndarray[Any, Any], other: torch.Tensor) -> None:
        """Take a difference into account."""
        self.equality = max(self.equality, float(np.abs(np.asarray(ours) - other.numpy()).max()))


def walk(pair: Pair, moments: Sequence[Moment], sampled: set[int], *, live: bool, floor: bool) -> Run:
    """Score every step in every way that is asked for, each with a conversation of its own that goes on."""
    counts = COUNTS if live else (1, 8)
    readings = {f"n{count}": (pair.policy, pair.policy.open(), count) for count in counts}
    if live:
        readings["reference"] = (pair.reference, pair.reference.open(), 1)
    rows = len(moments[-1].prompt) + MOST_CANDIDATES * ACTION
    floors = {f"n{count}": (Floor(pair.bare, rows), count) for count in (1, 8)} if floor else {}
    run = Run({name: [] for name in readings}, {name: [] for name in floors})
    executed: dict[str, list[float]] = {name: [] for name in readings}
    for number, moment in enumerate(moments):
        answers: dict[str, Any] = {}

        def score(name: str, moment: Moment = moment, answers: dict[str, Any] = answers) -> None:
            model, reading, count = readings[name]
            asked = moment.queries(count)
            seconds, answers[name] = cpu_seconds(lambda: model.answer(asked, reading))
            run.ours[name].append(seconds)
            executed[name] += answers[name][0][:, 0].tolist()

        def forward(name: str, moment: Moment = moment, answers: dict[str, Any] = answers) -> None:
            bare, count = floors[name]
            job = bare.prepare(moment.new, moment.candidates[:count])
            seconds, answers["floor_" + name] = cpu_seconds(lambda: bare.run(job))
            run.floor[name].append(seconds)
            bare.keep(len(moment.new) + ACTION)

        # Whatever stands next to each other is compared; which goes first alternates.
        turns = [(way, name) for name in readings for way in (score, forward) if way is score or name in floors]
        for way, name in turns if number % 2 else reversed(turns):
            way(name)
        for name in floors:
            if not np.allclose(np.concatenate(answers[name])[:, 0], answers["floor_" + name].numpy(), atol=1e-3):
                raise RuntimeError("ours and the bare forward differ; the benchmark compares unlike things")
        if live and number in sampled:
            place = sorted(sampled).index(number) % MOST_CANDIDATES
            ids = moment.prompt + moment.candidates[place]
            seconds, values = cpu_seconds(lambda ids=ids: official(pair.bare, ids))  # type: ignore[misc]
            run.official[len(ids)] = seconds
            for name, (model, _, count) in readings.items():
                if model is pair.policy and place < count:
                    run.differ(answers[name][place][:, 0], values[-ACTION:])
        note(f"  step {number + 1} of {len(moments)}")
    if live:
        finished = moments[-1].prompt + moments[-1].candidates[0]
        run.offline, values = cpu_seconds(lambda: official(pair.bare, finished))
        spans = torch.cat([torch.arange(len(m.prompt) - 1, len(m.prompt) - 1 + ACTION) for m in moments])
        for name in readings.keys() - {"reference"}:
            run.differ(executed[name], values[spans])
    return run


def live_ratios(run: Run, moments: Sequence[Moment]) -> Ratios:
    """The official arithmetic at every step, from where it was measured, over ours."""
    lengths, seconds = np.array(list(run.official)), np.array(list(run.official.values()))
    degree = min(2, len(lengths) - 1)
    cost = np.polynomial.Polynomial.fit(lengths, seconds, degree, w=1 / seconds)
    off = float(np.abs(cost(lengths) / seconds - 1).max())
    total = float(sum(cost(len(moment.prompt) + ACTION) for moment in moments))
    ours = {name: sum(each) for name, each in run.ours.items()}
    print(
        f"official arithmetic live, one candidate and model: {total:.1f} s over {len(moments)} steps. Not run at every "
        f"step:\n  measured at T = {', '.join(f'{t} ({s:.1f} s)' for t, s in run.official.items())}; a polynomial of "
        f"degree {degree} in T,\n  off by at most {off:.1%} there, gives the rest; candidates run one by one, so N "
        "candidates cost N times that\n"
        f"ours live: {', '.join(f'{name} {seconds:.1f} s' for name, seconds in ours.items())}\n"
        f"official offline pass, one model: {run.offline:.1f} s"
    )
    two = ours["n1"] + ours["reference"]
    return {f"live_n{count}": count * total / ours[f"n{count}"] for count in COUNTS} | {
        "live_over_offline": two / (2 * run.offline),
        "live_over_offline_of_one": two / run.offline,
    }


def quickest(runs: Sequence[Run]) -> Run:
    """Of each step in each way the quickest of the rounds: whatever else runs on the machine only adds."""
    return Run(
        ours={
            name: [min(each) for each in zip(*(run.ours[name] for run in runs), strict=True)] for name in runs[0].ours
        },
        official={length: min(run.official[length] for run in runs) for length in runs[0].official},
        offline=min(run.offline for run in runs),
    )


def whole_runs(pair: Pair, moments: Sequence[Moment], sampled: set[int], rounds: int, parts: set[str]) -> Ratios:
    """Ratios of whole runs; of the floor the median over all steps but the first, which reads the start."""
    live, floor = "live" in parts, "floor" in parts
    runs = []
    for number in range(rounds):
        note(f"walk {number + 1} of {rounds}")
        runs.append(walk(pair, moments, sampled, live=live, floor=floor))
    ratios: Ratios = {}
    if live:
        ratios["equality"] = max(run.equality for run in runs)
        ratios |= live_ratios(quickest(runs), moments)
    if floor:
        for name in ("n1", "n8"):
            steps = [
                ours / bare for run in runs for ours, bare in zip(run.ours[name][1:], run.floor[name][1:], strict=True)
            ]
            ratios[f"floor_{name}"] = statistics.median(steps)
            totals = [sum(getattr(run, way)[name][1:]) for run in runs for way in ("ours", "floor")]
            print(
                f"floor {name}: ours and bare, all steps but the first: {', '.join(f'{s:.1f}' for s in totals)} s; "
                f"ratio of totals {sum(totals[::2]) / sum(totals[1::2]):.3f}"
            )
    return ratios


# One step


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


def memory(pair: Pair, tokens: Tokens) -> Ratios:
    """Peak resident memory above what was there before, without what a reading keeps."""
    prompt = tokens.draw(LONG - STEP)
    peaks = {}
    for count in (1, 8):
        reading = pair.policy.open()
        reading.read(prompt)
        kept = 0
        for _ in range(2):  # at the second time the cache has its room already
            reading.read(prompt)
            asked = queries(prompt + tokens.draw(OBSERVATION), tokens.candidates(count))
            before = reading.nbytes
            peak, _ = peak_bytes(lambda asked=asked, reading=reading: pair.policy.answer(asked, reading))  # type: ignore[misc]
            kept = reading.nbytes - before
        peaks[count] = peak - max(0, kept)
        del reading
    ids = prompt + tokens.draw(STEP)
    theirs, _ = peak_bytes(lambda: official(pair.bare, ids))
    mebi = 1 << 20
    print(
        f"memory at T = {LONG}: ours {peaks[1] / mebi:.1f} MiB with 1 candidate, {peaks[8] / mebi:.1f} MiB with 8, "
        f"official {theirs / mebi:.0f} MiB"
    )
    return {"memory_step": peaks[1] / theirs, "memory_step_n8": peaks[8] / theirs}


def peak_bytes(work: Callable[[], Result]) -> tuple[int, Result]:
    """The most resident memory while some work runs, less what is resident before. Linux only."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what was freed and not given back would hide what the work takes
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts at what is resident now
    before = _status("VmRSS")
    result = work()
    return _status("VmHWM") - before, result


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * 1024
    raise RuntimeError(f"the kernel does not tell {name}")


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


def warm_up(pair: Pair, tokens: Tokens) -> None:
    """Have every library loaded and every buffer of theirs made."""
    prompt = tokens.draw(600)
    official(pair.bare, prompt)
    for model in (pair.policy, pair.reference):
        for count in COUNTS:
            model.answer(queries(prompt, tokens.candidates(count)), model.open())


def table(ratios: Ratios) -> str:
    """Each number, the bar it is held to, and whether it holds."""
    lines = [f"{'name':26} {'value':>10} {'bar':>12}  holds"]
    for name, value in ratios.items():
        bar, holds = "", ""
        if name in AT_LEAST:
            bar, holds = f">= {AT_LEAST[name]:g}", "yes" if value >= AT_LEAST[name] else "NO"
        elif name in AT_MOST:
            bar, holds = f"<= {AT_MOST[name]:g}", "yes" if value <= AT_MOST[name] else "NO"
        lines.append(f"{name:26} {value:10.4g} {bar:>12}  {holds}".rstrip())
    return "\n".join(lines)


def _parts(text: str) -> set[str]:
    parts = set(text.split(","))
    if unknown := parts - set(PARTS):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))} is none of {', '.join(PARTS)}")
    return parts


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("smollm2", "tiny"), default="smollm2")
    parser.add_argument("--steps", type=int, default=30, help="steps of the trajectory (default: %(default)s)")
    parser.add_argument(
        "--naive-steps", type=int, default=5, help="steps of them at which the official arithmetic runs"
    )
    parser.add_argument("--rounds", type=int, default=1, help="walks along the trajectory (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="of what is measured at one step (default: %(default)s)")
    parser.add_argument("--only", type=_parts, default=set(PARTS), help=f"some of {','.join(PARTS)}")
    parser.add_argument("--json", type=Path, help="write the ratios to this file")
    arguments = parser.parse_args()
    if not 2 <= arguments.steps <= 30 or min(arguments.naive_steps, arguments.rounds, arguments.repeats) < 1:
        parser.error("2 to 30 steps; everything else at least 1")
    bare, reference = load_pair(arguments.model)
    pair = Pair(bare, CausalLM(bare), CausalLM(reference))
    tokens = Tokens(arguments.model)
    print(f"{arguments.model}, read by {pair.policy.chosen.method}; {torch.get_num_threads()} threads")
    warm_up(pair, tokens)
    ratios: Ratios = {}
    parts: dict[str, Callable[[], Ratios]] = {
        "memory": lambda: memory(pair, tokens),
        "trie": lambda: trie(pair, tokens, arguments.repeats),
        "overhead": lambda: overhead(pair, tokens, arguments.repeats),
    }
    for name, part in parts.items():
        if name in arguments.only:
            note(name)
            ratios |= part()
    if arguments.only & {"live", "floor"}:
        moments = trajectory(tokens, arguments.steps)
        sampled = np.linspace(0, arguments.steps - 1, min(arguments.steps, arguments.naive_steps)).round().astype(int)
        ratios |= whole_runs(pair, moments, set(sampled.tolist()), arguments.rounds, arguments.only)
    print(table(ratios))
    if arguments.json:
        arguments.json.write_text(json.dumps(ratios, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
