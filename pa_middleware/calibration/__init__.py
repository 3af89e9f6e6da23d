"""Thresholds with a guarantee, from recorded runs: at most a given share of successful runs is ever stopped."""

from pa_middleware.calibration.calibrate import calibrate
from pa_middleware.calibration.errors import CalibrationError
from pa_middleware.calibration.labels import apply_labels, read_labels
from pa_middleware.calibration.recorded import run_from_records, runs_from_traces, traced_fingerprint
from pa_middleware.calibration.report import CalibrationReport
from pa_middleware.calibration.runs import ScoredRun, ScoredStep

__all__ = [
    "CalibrationError",
    "CalibrationReport",
    "ScoredRun",
    "ScoredStep",
    "apply_labels",
    "calibrate",
    "read_labels",
    "run_from_records",
    "runs_from_traces",
    "traced_fingerprint",
]
