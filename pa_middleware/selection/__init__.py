"""Choosing among runs: best of N, beam search, and a finished run again from the step that went wrong."""

from pa_middleware.selection.beam import Beam, abeam_search, beam_search
from pa_middleware.selection.best_of_n import BestOfN, abest_of_n, best_of_n
from pa_middleware.selection.cost import Cost
from pa_middleware.selection.errors import SelectionError
from pa_middleware.selection.fork import Fork, ForkEnvironment
from pa_middleware.selection.replay import areplay, replay
from pa_middleware.selection.replay_result import Attempt, Confirmation, Ending, Replay
from pa_middleware.selection.trajectory import Trajectory

__all__ = [
    "Attempt",
    "Beam",
    "BestOfN",
    "Confirmation",
    "Cost",
    "Ending",
    "Fork",
    "ForkEnvironment",
    "Replay",
    "SelectionError",
    "Trajectory",
    "abeam_search",
    "abest_of_n",
    "areplay",
    "beam_search",
    "best_of_n",
    "replay",
]
