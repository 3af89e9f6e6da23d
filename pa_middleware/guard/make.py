"""What every guard, wherever it is placed, is made from; and whether its parts belong together."""

from __future__ import annotations

import logging
from inspect import iscoroutinefunction
from typing import Any

from pa_middleware.guard.core import GuardCore, History, check_names
from pa_middleware.guard.errors import GuardError
from pa_middleware.guard.rules import Rules
from pa_middleware.scoring.fingerprint import Identified, differences, fingerprint_of
from pa_middleware.scoring.scorer import Scorer, Tool
from pa_middleware.tracing import Telemetry

logger = logging.getLogger(__name__)


def make_core(
    scorer: Scorer,
    rules: Rules,
    *,
    history: History | None = None,
    messages_key: str = "messages",
    tools: tuple[Tool, ...] | None = None,
    stream: str = "buffered",
    draws_at_once: int | None = None,
    **telemetry: Any,
) -> GuardCore:
    """The parts that a guard shares; arguments as for `Guard`, `telemetry` as for `Telemetry`.

    Raises:
        GuardError: no scorer, no rules, or rules that were calibrated with another scorer.
        RulesError: a setting of the rules that has no effect among these tools.
    """
    if not isinstance(scorer, Scorer) or isinstance(scorer, type) or iscoroutinefunction(scorer.score):
        raise GuardError(
            f"scorer is {scorer!r:.100}; needed: an object with a plain method score(steps), such as a ModelPair"
        )
    if not isinstance(rules, Rules):
        raise GuardError(f"rules is {rules!r:.100}; needed: Rules(...)")
    if stream not in ("buffered", "live"):
        raise GuardError(f"stream is {stream!r}; allowed: 'buffered', 'live'")
    if draws_at_once is not None and (type(draws_at_once) is not int or draws_at_once < 1):
        raise GuardError(f"draws_at_once is {draws_at_once!r}; allowed: a whole number from 1 on, or None")
    if rules.stop_at is not None:
        _check_bound(scorer, rules)
    if tools is not None:
        check_names(rules, tools)
    _check_calibration(scorer, rules)
    described = Telemetry(
        scorer=type(scorer).__name__,
        policy_model=str(getattr(scorer, "policy_name", "")),
        reference_model=str(getattr(scorer, "reference_name", "")),
        fingerprint=lambda: fingerprint_of(scorer),
        token_texts=getattr(scorer, "token_texts", None),
        **telemetry,
    )
    live = stream == "live"
    core = GuardCore(scorer, rules, described, history, messages_key, tools, live=live, draws_at_once=draws_at_once)
    core.learn(tools or ())
    return core


def _check_bound(scorer: Scorer, rules: Rules) -> None:
    """`stop_at` reckons with the probability of whole actions; see `guard.enough`."""
    for name, needed, why in (
        ("end_of_turn", True, "without the end of the turn an action's probability covers all that goes on from it"),
        ("aggregation", "sum", "only the sum over an action's tokens is the log-ratio of the action"),
    ):
        given = getattr(scorer, name, needed)
        if given != needed and (name == "end_of_turn" or rules.drawn_by == "reference"):
            raise GuardError(
                f"stop_at={rules.stop_at!r} has no bound with a scorer of {name}={given!r}: {why}; use a scorer of "
                f"{name}={needed!r}, or leave stop_at out"
            )


def _check_calibration(scorer: Scorer, rules: Rules) -> None:
    """A threshold means something under the scorer it was found with, and nothing under another."""
    if rules.calibration is None:
        if rules.effective_mode == "shadow" and not isinstance(scorer, Identified):
            logger.warning(
                "%s has no fingerprint(), so that thresholds calibrated on what this guard watches can be bound to no "
                "scorer; give it one, see pa_middleware.scoring.fingerprint",
                type(scorer).__name__,
            )
        if rules.mode is None and rules.judges:
            logger.warning(
                "the threshold is not calibrated, so this guard watches and changes nothing (mode='shadow'); calibrate "
                "it with `pa-middleware calibrate`, or set mode='enforce' to act on it as it is"
            )
        return
    found = fingerprint_of(scorer)
    if found is None:
        raise GuardError(
            f"the rules were calibrated, and {type(scorer).__name__} has no fingerprint() to tell whether with this "
            "scorer; give it one, or leave the calibration out with dataclasses.replace(rules, calibration=None)"
        )
    if different := differences(rules.calibration.fingerprint, found):
        raise GuardError(
            f"the rules were calibrated with another scorer: it differs in {', '.join(different)}. Load the pair they "
            "were made with, or calibrate again with this one"
        )
