"""Finished runs from whoever wrote them: benchmarks, chat logs, checkpoints, traces."""

from pa_middleware.evaluation.reading.checkpoints import trajectories_from_saver
from pa_middleware.evaluation.reading.sources import SOURCES, Source, read_trajectories

__all__ = ["SOURCES", "Source", "read_trajectories", "trajectories_from_saver"]
