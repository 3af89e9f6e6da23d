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
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.scoring_memory import memory
from benchmarks.scoring_models import Tokens, load_pair, trajectory
from benchmarks.scoring_runs import whole_runs
from benchmarks.scoring_step import overhead, trie
from benchmarks.scoring_timing import Pair, Ratios, note, warm_up
from pa_middleware.scoring.causal_lm import CausalLM

PARTS = ("memory", "trie", "overhead", "live", "floor")

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
