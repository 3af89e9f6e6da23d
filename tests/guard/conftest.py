"""The tracing tests' backend in memory, and a scorer that is held, for guards."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from guard.held import Held, go_home
from tracing.conftest import Backend, backend

__all__ = ["Backend", "backend", "held", "workers_go_home"]


@pytest.fixture
def held() -> Iterator[Held]:
    """Let go after the test."""
    scorer = Held()
    yield scorer
    scorer.let_go()


@pytest.fixture
def workers_go_home() -> Iterator[None]:
    """Hold a test to leaving no worker behind."""
    yield
    go_home()
