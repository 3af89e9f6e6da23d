"""The words a guard decides in."""

from __future__ import annotations

from typing import Literal

Decision = Literal["pass", "resample", "flag", "block", "escalate", "abstain"]
"""What becomes of an action.

- `pass`: it runs, unchanged: its score is at or above the threshold, or there is none.
- `resample`: it was drawn and not taken; it stays out of state and streams, and on record.
- `flag`: it runs although it is low; record and span say so.
- `block`: some of its tool calls are answered by an error message, the others run.
- `escalate`: a human decides before any tool of the step.
- `abstain`: none of it runs; the agent answers with a safe message instead and the run ends.
"""

Reason = Literal[
    "above_threshold",
    "no_threshold",
    "best_of",
    "below_threshold",
    "budget_exhausted",
    "not_scored",
    "scorer_error",
    "human",
    "searched",
]
"""Why: `budget_exhausted` is low with no draws left for the run, `not_scored` means no candidate could be scored (empty
or malformed actions), `scorer_error` that the scorer itself failed, `best_of` that the best draw was taken unjudged,
`human` that a human decided what the rules had escalated, `searched` that a search goes on with this draw, whichever
was best."""

HumanDecision = Literal["approve", "edit", "reject", "respond"]
"""What a human makes of an escalated tool call: it runs, it runs otherwise, it does not, or the human answers it."""
