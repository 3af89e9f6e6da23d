"""What keeps a search from choosing among runs."""

from __future__ import annotations


class SelectionError(RuntimeError):
    """The graph, its runs or its world do not allow what was asked; the message says what is missing."""
