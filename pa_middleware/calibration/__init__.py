"""Thresholds with a guarantee, from recorded runs: few successful runs have an action below them.

What `pa-middleware calibrate` does, given the folder of a trace and a file of labels:

    traces = pa_middleware.tracing.read("traces")
    runs = apply_labels(runs_from_traces(traces), read_labels("labels.csv"))
    report = calibrate(runs, fingerprint=traced_fingerprint(traces), alpha=0.1)
    rich.print(render(report))
    report.rules.save("rules.json")
"""

from pa_middleware.calibration.calibrate import calibrate
from pa_middleware.calibration.errors import CalibrationError
from pa_middleware.calibration.labels import apply_labels, read_labels
from pa_middleware.calibration.recorded import run_from_records, runs_from_traces, traced_fingerprint
from pa_middleware.calibration.report import CalibrationReport
from pa_middleware.calibration.runs import ScoredRun, ScoredStep
from pa_middleware.calibration.show import render

__all__ = [
    "CalibrationError",
    "CalibrationReport",
    "ScoredRun",
    "ScoredStep",
    "apply_labels",
    "calibrate",
    "read_labels",
    "render",
    "run_from_records",
    "runs_from_traces",
    "traced_fingerprint",
]
