"""Plots of the theory's check: log-ratio against exact advantage, over training, over the weight of the KL penalty."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from pa_middleware.plotting import LINES, drawing, legend_below

from .environment import BETA
from .exact import occupancy
from .theory import Theory
from .theory_policies import Policy

_WEIGHTINGS = {
    "on_policy": "policy's states and actions",
    "policy_states": "policy's states, reference's actions",
    "reference_states": "reference's states and actions",
}
_LEAST_SHARE = 1e-5
"""Of the visits; a rarer action would be a dot too small to see."""


def plot_theory(theory: Theory, folder: Path) -> None:
    """Write `scatter.svg`, `training.svg` and `beta.svg` to a folder.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        OSError: a file cannot be written.
    """
    trained = [policy for policy in theory.policies if policy.iterations is not None]
    over_training = [policy for policy in trained if policy.beta == BETA]
    longest = max(policy.iterations or 0 for policy in trained)
    over_beta = [policy for policy in trained if policy.iterations == longest]
    plot_scatter([policy for policy in (theory.trap, over_training[-1]) if policy], folder / "scatter.svg")
    plot_over(over_training, "iterations", "iterations of training", folder / "training.svg")
    plot_over(over_beta, "beta", "beta", folder / "beta.svg")


def plot_scatter(policies: Sequence[Policy], file: Path) -> None:
    """Every (state, action) as a ring, its area the share of visits: off-policy grey, on-policy black on top."""
    with drawing(file, 1, len(policies), width=3.6 * len(policies), height=4.3) as axes:
        for place, policy in zip(axes, policies, strict=True):
            visits, _ = occupancy(policy.policy)
            for chosen, colour in ((policy.reference, "0.65"), (policy.policy, "black")):
                share = visits[:, None] * chosen / visits.sum()
                seen = share > _LEAST_SHARE
                place.scatter(
                    policy.advantage[seen],
                    policy.score[seen],
                    s=4_000 * share[seen],
                    facecolors="none",
                    edgecolors=colour,
                    linewidths=0.6,
                    rasterized=True,  # thousands of paths else
                )
            ends = [min(place.get_xlim()[0], place.get_ylim()[0]), max(place.get_xlim()[1], place.get_ylim()[1])]
            place.plot(ends, ends, color="black", linewidth=0.6, zorder=0)
            for colour, label in (("0.65", "policy_states"), ("black", "on_policy")):
                place.plot([], [], "o", fillstyle="none", color=colour, label=_WEIGHTINGS[label])
            place.set(title=policy.name, xlabel="exact advantage A*", ylabel="beta * log(policy / reference)")
            place.set(xlim=ends, ylim=ends, aspect="equal")
            legend_below(place)


def plot_over(policies: Sequence[Policy], variable: Literal["iterations", "beta"], name: str, file: Path) -> None:
    """Spearman, and success beside the exact optimum's, over an attribute of the policies."""
    success = {"policy_success": "policy", "optimum_success": "exact optimum"}
    spearman = {f"{key}_spearman": label for key, label in _WEIGHTINGS.items()}
    x = np.array([getattr(policy, variable) for policy in policies], dtype=np.float64)
    with drawing(file, 1, 2, width=7.2, height=4.0) as axes:
        for place, lines, title in zip(
            axes, (spearman, success), ("Spearman of log-ratio and A*", "deliveries within 30 steps"), strict=True
        ):
            for look, (key, label) in zip(LINES, lines.items(), strict=False):
                place.plot(x, [policy.figures[key] for policy in policies], **look, label=label, clip_on=False)
            place.set_xscale("log")
            place.set_xticks(x, [f"{each:g}" for each in x])
            place.minorticks_off()
            place.set(xlabel=name, title=title, ylim=(0.5, 1.0))
            legend_below(place)
