"""Recorded runs as one HTML page that stands alone."""

from pa_middleware.debugging.report.write import ReportError, Written, write_report

__all__ = ["ReportError", "Written", "write_report"]
