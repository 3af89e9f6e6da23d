"""The shipped pair's model card, written from the training record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from . import supervised
from .environment import BETA, GAMMA, HORIZON
from .further import FURTHER

_COLUMNS = ("pearson", "spearman", "sign", "error", "top1", "regret")
_ROWS = {
    "policy_states": "policy's states, reference's actions",
    "reference_states": "reference's states, reference's actions",
    "on_policy": "policy's states, policy's actions",
}


def model_card(record: Mapping[str, Any]) -> str:
    """Markdown of the card.

    Args:
        record: what `training.json` holds.
    """
    final, settings = record["final"], record["settings"]
    stopped = [each.iterations for each in FURTHER if each.beta == BETA]
    betas = [each.beta for each in FURTHER if each.beta != BETA]
    return f"""\
---
license: mit
library_name: transformers
pipeline_tag: text-generation
---

# Taxi pair: a reference and the policy that reinforcement learning made of it

Two Llama models of 0.7 million parameters (hidden size 128, 4 layers, byte-level BPE of 512 tokens, float32) that drive
gymnasium's `Taxi-v4` in the rain (`is_rainy=True`, `rainy_probability=0.8`, {HORIZON} steps) with three tools: `move`,
`pickup` and `dropoff`. They exist to show the progress advantage beta * log(policy / reference) of an action where the
exact advantage is known. They do nothing else.

| agent | delivers within {HORIZON} steps |
|---|---|
| reference | {final["reference_success"]:.3f} |
| policy | {final["policy_success"]:.3f} |
| exact soft optimum for this reference | {final["optimum_success"]:.3f} |

## Agreement with the exact advantage

Soft dynamic programming over the environment's transition table gives the exact advantage of every action for this
reference, A*(s, a) = beta * log(pi*(a|s) / pi_ref(a|s)). Weights are exact: expected visits in {HORIZON} steps times
the action's probability. Sign: share of equal signs. Error: mean absolute. Top-1: the legal action of highest score is
the best one. Regret: what taking it loses against the best one.

{_table(final, _ROWS)}

The models were trained on a window: system text, task and the latest observation. Shown the whole history instead,
which neither model ever saw, the scores mean less (sampled, 50 episodes of each model, reference's actions):

{_table(record["full_history"], dict(list(_ROWS.items())[:2]))}

## Training

- Reference: cross-entropy on actions sampled from a behaviour policy ({supervised.DEMONSTRATIONS:,} episodes,
  {supervised.STEPS:,} steps of {supervised.BATCH} states). The demonstrator heads straight for its target, walls or not
  ({supervised.CROW:.0%}), takes the best action ({supervised.BEST:.0%}) or any action ({supervised.ANY:.0%}). "Best"
  comes from plain value iteration; it makes demonstrations and is not the soft optimum of the pair.
- Policy: KL-regularised policy mirror descent as regression, beta {BETA:g}, gamma {GAMMA:g}: the log-ratio is fitted to
  sampled soft advantages, with a tabular critic learned by TD(0) from the same samples.
  {settings["iterations"]} iterations of {settings["episodes"]:,} (later {settings["late_episodes"]:,}) episodes and
  {settings["updates"]} gradient steps of {settings["batch"]} states; {settings["explore"]:.0%} of the steps explore,
  {settings["anywhere"]:.0%} of the episodes start anywhere.
- What entered the policy's training: rewards, log-ratios and sampled transitions. No transition probability, no exact
  value or advantage did; those measured the result. Episodes are simulated by sampling from gymnasium's own table.
- Seed {record["seed"]}, {record["minutes"]:.0f} minutes on one core. It is made again by
  `python -m pa_demos.taxi.train --seed {record["seed"]} --out pair`; `training.json` holds the whole log.

## Further policies

`further/` holds the weights of {len(FURTHER)} more policies, float16, trained from the same reference in the same way
with other random numbers: at beta 1 stopped after {_listed(stopped)} iterations, and at beta {_listed(betas)} to the
end. They are to be measured, not used: a policy whose training was cut short scores its own actions badly while its
scores on the reference's runs look right. `pa-middleware verify-theory` prints all figures. They are made again by
`python -m pa_demos.taxi.train_further --out pair/further`, to the bit on the same kind of processor.

## Limits

Success and agreement hold for this environment, these prompts and this chat template. States that training hardly
visits are scored worse. Zero is not average: an ordinary action of the policy scores above zero.
"""


def _listed(numbers: Sequence[float]) -> str:
    *most, last = [f"{number:g}" for number in numbers]
    return f"{', '.join(most)} and {last}"


def _table(figures: Mapping[str, float], rows: Mapping[str, str]) -> str:
    lines = ["| weighting | " + " | ".join(_COLUMNS) + " |", "|---" * (len(_COLUMNS) + 1) + "|"]
    for key, text in rows.items():
        cells = [f"{figures[f'{key}_{name}']:.3f}" if f"{key}_{name}" in figures else "" for name in _COLUMNS]
        lines.append(f"| {text} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
