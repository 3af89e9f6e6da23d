"""The theory of progress advantage where it can be checked to the digit: the taxi, whose optimum is known.

`verify` checks the identities of the exact optimum, the sum over tokens of a real pair, and how far the log-ratios of
real policies are the exact advantage: the shipped pair's, which has bars to pass, and those of `further`, which show
what other KL weights and an early end of training do.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, cast

from transformers import LlamaForCausalLM
from transformers.utils import logging

from pa_middleware import ModelPair, Step

from .actions import ActionTable, tabulate
from .environment import ACTIONS, BETA, active_states, goal, observation
from .episode import PAIR, shipped_pair
from .exact import Table
from .further import FURTHER, load
from .prompt import ACTION_MESSAGES, TOOLS, window
from .reinforce import Settings
from .theory_identities import Check, identities, unlike
from .theory_policies import Policy, measure, optimum, optimum_check, pair_checks

BETAS = (0.5, 1.0, 2.0, 3.0)
"""Weights of the KL penalty at which the identities are checked."""
CHAIN_RULE = "sum over tokens = the action's log-ratio"
"""The identity of real scores: the sum over an action's tokens is the action's."""
TOKEN_TOLERANCE = 1e-4
"""Of the sum over tokens, nats: the two ways to it are float32."""
TRAP = 0.2
"""Least difference of Spearman, on the reference's runs and on a policy's own actions, that is pointed out."""


@dataclass(frozen=True, slots=True)
class Theory:
    """All that was found."""

    checks: tuple[Check, ...]
    """The identities, beta by beta, then what real policies are held to."""
    policies: tuple[Policy, ...]
    """By beta, then by training; the exact optimum at the demo's beta comes last of its beta."""
    unlike: dict[str, float]
    """See `theory_identities.unlike`; at the demo's beta."""

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that do not hold."""
        return tuple(check for check in self.checks if not check.holds)

    @property
    def trap(self) -> Policy | None:
        """Of those that look much worse on their own actions, the one that looks best on the reference's runs."""

        def seen(policy: Policy) -> tuple[float, float]:
            return policy.figures["reference_states_spearman"], policy.figures["on_policy_spearman"]

        trapped = [policy for policy in self.policies if seen(policy)[0] - seen(policy)[1] >= TRAP]
        return max(trapped, key=lambda policy: seen(policy)[0], default=None)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "passed": not self.failed,
            "checks": [{**asdict(check), "holds": check.holds} for check in self.checks],
            "policies": [
                {"name": each.name, "beta": each.beta, "iterations": each.iterations, **each.figures}
                for each in self.policies
            ],
            "unlike": self.unlike,
        }


def verify() -> Theory:
    """Check everything on the shipped models; some seconds."""
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    pair = shipped_pair()
    table = ActionTable(pair.tokenizer)  # type: ignore[arg-type]
    policy, reference = cast("LlamaForCausalLM", pair.policy.model), cast("LlamaForCausalLM", pair.reference.model)
    log_policy, log_reference = tabulate(policy, table), tabulate(reference, table)
    shipped = measure(f"beta {BETA:g}, shipped", BETA, Settings().iterations, log_policy, log_reference)
    best = optimum(log_reference, BETA)
    policies = [shipped, best]
    for each in FURTHER:
        further = tabulate(load(PAIR / "further" / each.file, reference), table)
        name = f"beta {each.beta:g}, {each.iterations} of {Settings().iterations}"
        policies.append(measure(name, each.beta, each.iterations, further, log_reference))
    policies.sort(key=lambda each: (each.beta, each.iterations or float("inf")))
    return Theory(
        checks=(
            *(check for beta in BETAS for check in identities(log_reference, beta)),
            Check(
                CHAIN_RULE,
                token_error(pair, log_policy, log_reference),
                TOKEN_TOLERANCE,
            ),
            optimum_check(best),
            *pair_checks(shipped),
        ),
        policies=tuple(policies),
        unlike=unlike(log_reference, BETA),
    )


def token_error(pair: ModelPair, log_policy: Table, log_reference: Table) -> float:
    """How far the pair's scores, sums over the tokens of an action, are from the tables' log-ratios.

    Args:
        pair: scores messages, token by token.
        log_policy: log pi_theta of whole actions, float64 [500, 7], nats.
        log_reference: log pi_ref, likewise.

    Returns:
        The largest difference over every twentieth state and its six actions, nats.
    """
    states = active_states()[::20].tolist()
    steps = [Step(window(goal(state), observation(state)), ACTION_MESSAGES, TOOLS) for state in states]
    ratio = log_policy - log_reference
    return max(
        abs(sum(candidate.token_log_ratios) - float(ratio[state, action]))
        for state, scored in zip(states, pair.score(steps), strict=True)
        for action, candidate in zip(range(len(ACTIONS)), scored.candidates, strict=True)
    )
