"""What scoring a live conversation costs, next to the official arithmetic and next to drawing the actions.

    python -m benchmarks.guard_overhead [--json FILE]

A conversation of 30 taxi steps with its whole history in the prompt (150 to 1,300 tokens) is scored step by step with
the shipped pair. `naive` is the paper's official arithmetic used live: at every step one full forward for each
candidate and model, logits of every position in float32, full log-softmax. The ways take turns in one process; times
are CPU seconds of all 30 steps, ratios are medians over the rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from langchain_core.messages import BaseMessage, ToolMessage
from pa_demos.taxi.agent import first_messages
from pa_demos.taxi.environment import HORIZON, MALFORMED, Taxi
from pa_demos.taxi.episode import shipped_pair
from pa_demos.taxi.prompt import ACTION_MESSAGES, TOOLS
from pa_transformers import LocalChatModel

from pa_middleware import ModelPair, Step

ROUNDS = 5


def conversation() -> list[Step]:
    """The steps of one long conversation, four candidates each."""
    taxi = Taxi(1)
    history: list[BaseMessage] = list(first_messages(taxi))
    steps = []
    for number in range(HORIZON):
        candidates = [ACTION_MESSAGES[(number + offset) % MALFORMED] for offset in range(4)]
        steps.append(Step(tuple(history), candidates, TOOLS))
        # The world stands still, so that the conversation has its full length.
        history += [candidates[0], ToolMessage(taxi.observation, tool_call_id=candidates[0].tool_calls[0]["id"] or "")]
    return steps


@torch.inference_mode()
def score_naively(pair: ModelPair, step: Step) -> list[float]:
    """Scores of a step's candidates by the official arithmetic."""
    rendered = pair.renderer.render(step)
    scores = []
    for action in rendered.actions:
        ids = torch.tensor([[*rendered.prompt, *action.ids]])
        sums = []
        for lm in (pair.policy, pair.reference):
            log_probs = torch.log_softmax(lm.model(ids).logits[0].float(), dim=-1)
            gathered = log_probs[:-1].gather(1, ids[0, 1:, None]).squeeze(1)
            sums.append(float(gathered[len(rendered.prompt) - 1 :].sum()))
        scores.append(sums[0] - sums[1])
    return scores


def only(step: Step, count: int) -> Step:
    """The step with its first candidates."""
    return Step(step.history, step.candidates[:count], step.tools)


def measure(pair: ModelPair, model: LocalChatModel, steps: Sequence[Step]) -> tuple[dict[str, float], float]:
    """CPU seconds of each way over all steps, and the largest difference between two ways' scores."""
    seconds = dict.fromkeys(("naive_1", "naive_4", "ours_1", "ours_4", "drawing"), 0.0)
    worst = 0.0

    def timed(name: str, started: float) -> None:
        seconds[name] += time.process_time() - started

    for count in (1, 4):
        for step in steps:
            started = time.process_time()
            naive = score_naively(pair, only(step, count))
            timed(f"naive_{count}", started)
            started = time.process_time()
            ours = pair.score([only(step, count)])[0]
            timed(f"ours_{count}", started)
            worst = max(worst, *(abs(a - b.score) for a, b in zip(naive, ours.candidates, strict=True)))
    driver = model.bind_tools(TOOLS)
    for step in steps:
        started = time.process_time()
        driver.invoke(list(step.history))
        timed("drawing", started)
    return seconds, worst


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the ratios to this file")
    arguments = parser.parse_args()
    pair = shipped_pair()
    model = LocalChatModel(model=pair.reference.model, tokenizer=pair.tokenizer, seed=0, max_new_tokens=9)
    steps = conversation()
    rounds = []
    worst = 0.0
    for _ in range(ROUNDS + 1):
        seconds, difference = measure(pair, model, steps)
        rounds.append(seconds)
        worst = max(worst, difference)
    report = {
        name: round(statistics.median(seconds[over] / seconds[under] for seconds in rounds[1:]), 2)
        for name, over, under in (
            ("naive_over_ours_1_candidate", "naive_1", "ours_1"),
            ("naive_over_ours_4_candidates", "naive_4", "ours_4"),
            ("scoring_1_over_drawing_1", "ours_1", "drawing"),
        )
    }
    report["largest_difference_of_a_score"] = float(f"{worst:.1e}")
    for name, value in report.items():
        print(f"{name:32} {value}")
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
