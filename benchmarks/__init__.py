"""Ratios measured side by side in one process; run with `make bench`."""
