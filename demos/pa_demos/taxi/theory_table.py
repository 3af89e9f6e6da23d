"""The theory's check for the terminal; readable without colour and at 80 columns."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from .environment import BETA, HORIZON
from .theory import BETAS, CHAIN_RULE, Theory

_WEIGHTINGS = {
    "on_policy": "On-policy: the policy's states and actions",
    "policy_states": "Off-policy: the policy's states, the reference's actions",
    "reference_states": "Off-policy: the reference's states and actions",
}
_COLUMNS = {
    "pearson": "Pearson",
    "spearman": "Spearman",
    "sign": "sign",
    "error": "error",
    "top1": "top-1",
    "regret": "regret",
}


def render(theory: Theory) -> RenderableType:
    """Something `rich.print` can show."""
    agreements = [part for key in _WEIGHTINGS for part in (Text(), _agreement(theory, key))]
    return Group(
        _identities(theory),
        _unlike(theory),
        Text(),
        _trained(theory),
        *agreements,
        _meaning(),
        _trap(theory),
        _verdict(theory),
    )


def _identities(theory: Theory) -> Table:
    table = _table("Identities of the exact soft optimum, largest error over 400 states:")
    table.add_column("identity", no_wrap=True)
    for beta in BETAS:
        table.add_column(f"beta {beta:g}", justify="right", no_wrap=True)
    exact = [check for check in theory.checks if check.beta is not None]
    for what in dict.fromkeys(check.what for check in exact):
        table.add_row(Text(what), *(f"{check.value:.0e}" for check in exact if check.what == what))
    for check in theory.checks:
        if check.what == CHAIN_RULE:
            table.add_row(check.what, *(f"{check.value:.0e}" if beta == BETA else "" for beta in BETAS))
    return table


def _unlike(theory: Theory) -> Text:
    found = theory.unlike
    return Text(
        "The states are those in which an episode can be under way. The last row is of the shipped pair, in float32.\n"
        f"Shaped rewards, r + gamma E[phi(s')] - phi(s), are up to {found['shaping']:.0f} away from the true ones: the "
        "advantage does not tell the reward.\n"
        f"Zero is not average. In the optimum's states its own actions have A* {found['optimum_mean']:+.2f} in the "
        f"mean ({found['optimum_positive']:.0%} are above 0), the reference's {found['reference_mean']:+.2f}.\n"
        "The expectation is needed: r + gamma V*(s') - V*(s) of the one state that came is "
        f"{found['outcome_error']:.2f} off A* in the mean."
    )


def _trained(theory: Theory) -> Table:
    table = _table("The policies:")
    for name in ("policy", "delivers", "exact optimum", "KL, nats a step"):
        table.add_column(name, justify="left" if name == "policy" else "right", no_wrap=True)
    for each in theory.policies:
        shown = (each.figures[key] for key in ("policy_success", "optimum_success", "kl"))
        table.add_row(each.name, *(f"{value:.3f}" for value in shown))
    return table


def _agreement(theory: Theory, weighting: str) -> Table:
    table = _table(f"{_WEIGHTINGS[weighting]}:")
    table.add_column("policy", no_wrap=True)
    columns = [key for key in _COLUMNS if f"{weighting}_{key}" in theory.policies[0].figures]
    for key in columns:
        table.add_column(_COLUMNS[key], justify="right", no_wrap=True)
    for each in theory.policies:
        table.add_row(each.name, *(f"{each.figures[f'{weighting}_{key}']:.3f}" for key in columns))
    return table


def _meaning() -> Text:
    return Text(
        "beta * log(policy / reference) against A* of the optimum at the same beta. Weights are exact: visits in "
        f"{HORIZON} steps times the action's probability. sign: share of equal signs; error: mean absolute; top-1: the "
        "legal action of highest score is the best one; regret: what taking it loses against the best.\n"
        "10 of 50: training was stopped after 10 iterations of 50. The shipped policy got all of them."
    )


def _trap(theory: Theory) -> Text:
    trap = theory.trap
    if trap is None:
        return Text()
    found = trap.figures

    def both(weighting: str) -> str:
        return f"Pearson {found[f'{weighting}_pearson']:.2f}, Spearman {found[f'{weighting}_spearman']:.2f}"

    return Text(
        f"\nA trap: the policy of {trap.name}, delivers {found['policy_success']:.0%}, and its log-ratio looks right "
        f"on the reference's runs ({both('reference_states')}). On its own actions it is not ({both('on_policy')}). "
        "Whether training has converged shows on-policy only.\n"
    )


def _verdict(theory: Theory) -> Text:
    if not theory.failed:
        return Text(
            f"All {len(theory.checks)} checks hold: the identities, the optimum's, and the shipped pair's bars."
        )
    lines = [
        f"  {check.what}{'' if check.beta is None else f', beta {check.beta:g}'}: {check.value:.4g}, "
        f"{'at least' if check.at_least else 'at most'} {check.bar:g}"
        for check in theory.failed
    ]
    return Text("\n".join([f"{len(theory.failed)} of {len(theory.checks)} checks do not hold:", *lines]))


def _table(title: str) -> Table:
    return Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title=title, title_justify="left", title_style="")
