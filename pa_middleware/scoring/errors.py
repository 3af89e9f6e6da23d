"""What can go wrong when an action is scored. All of it is an error; none of it is ever a number."""

from __future__ import annotations


class ScoringError(Exception):
    """A score could not be computed. The guard answers with its rules' `on_scorer_error`."""


class UnscorableActionError(ScoringError):
    """The action itself cannot be scored: it is empty, malformed or no AIMessage. Another draw may do better."""


class RenderingError(ScoringError):
    """The history cannot be turned into the prompt the policy saw: no messages, or a template that refuses them."""


class ContextLengthError(ScoringError):
    """History and action together exceed what the models can read."""


class PairError(ScoringError):
    """The two models do not form a pair: their vocabularies differ, or a checkpoint lacks what scoring needs."""


class ScoringTimeoutError(ScoringError):
    """The scorer was not done in the time the rules give it. What it answers later is discarded."""
