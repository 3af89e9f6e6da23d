"""An engine in one word is found, or refused without a word of what may be secret."""

from __future__ import annotations

import pytest
from pa_openai import OpenAICompatible
from pa_vllm import VLLM

from pa_middleware.engines.spec import source_of


def test_a_spec_names_kind_model_and_address() -> None:
    source = source_of("vllm:org/policy@main@http://engine:8000/v1", timeout=1.0)
    assert isinstance(source, VLLM)
    assert (source.model, source.url) == ("org/policy@main", "http://engine:8000")
    assert isinstance(source_of("openai:policy@https://engine"), OpenAICompatible)


@pytest.mark.parametrize(
    ("spec", "shown"),
    [
        ("vlm:policy@http://user:hunter2@engine:8000", "vlm:..."),
        ("vllm:policy@https:/user:hunter2@engine:8000", "vllm:***@engine:8000"),
        ("vllm:http://user:hunter2@engine:8000", "vllm:***@engine:8000"),
        ("hunter2@engine:8000", "***@engine:8000"),
        ("hunter2:@engine", "***@engine"),
        ("vllm:policy@user:hunter2@engine:8000/v1?key=hunter2", "vllm:***@engine:8000/v1"),
        ("vllm:policy#hunter2", "vllm:policy"),
        ("vllm:policy@engine:8000", "vllm:***@engine:8000"),
        ("vllm:policy", "vllm:policy"),
        ("", ""),
    ],
)
def test_what_names_no_engine_is_shown_without_secrets(spec: str, shown: str) -> None:
    with pytest.raises(ValueError, match="names no engine; needed: KIND:MODEL@URL, with KIND one of vllm,") as caught:
        source_of(spec)
    assert str(caught.value).startswith(f"{shown!r} names no engine")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://user:hunter2@engine", "http://user:hunter2@http://engine"])
def test_an_address_with_a_password_is_refused_and_the_password_not_shown(url: str) -> None:
    with pytest.raises(ValueError, match="name an environment variable with auth_env instead") as caught:
        source_of(f"vllm:policy@{url}")
    assert "hunter2" not in str(caught.value)
