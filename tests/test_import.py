"""Importing the package is light: heavy libraries load on use."""

from __future__ import annotations

import subprocess
import sys

import pytest

import pa_middleware

LOADED = "import sys; print(*sorted({name for name in sys.modules}))"


def loaded(code: str) -> set[str]:
    """The modules that a fresh interpreter holds after some code."""
    done = subprocess.run([sys.executable, "-c", f"{code}; {LOADED}"], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing_heavy() -> None:
    modules = loaded("import pa_middleware")
    heavy = {"torch", "transformers", "opentelemetry.sdk", "langgraph", "langchain_core", "numpy", "pydantic"}
    assert "pa_middleware" in modules
    assert not modules & heavy


@pytest.mark.parametrize(
    "names", ["Guard, Rules", "GuardState, GuardError, RulesError, Decision", "Scorer, Step, StepScore"]
)
def test_what_a_guard_needs_loads_no_models_and_nothing_of_the_sdk_that_langgraph_does_not_load(names: str) -> None:
    modules = loaded(f"from pa_middleware import {names}")
    assert not modules & {"torch", "transformers"}
    ours = modules - loaded("import langgraph.graph")
    assert not {module for module in ours if module.startswith("opentelemetry.sdk")}


def test_every_public_name_resolves() -> None:
    for name in pa_middleware.__all__:
        assert getattr(pa_middleware, name) is not None
    assert len(set(pa_middleware.__all__)) == len(pa_middleware.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Gard'"):
        _ = pa_middleware.Gard
