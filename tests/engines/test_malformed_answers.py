"""Whatever a server writes in place of a number, an index or an array is an EngineAnswerError, and costs no memory."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from engines.vllm_answers import npy
from pa_openai.echoed import choices_of as echoed_choices
from pa_openai.echoed import rows_of
from pa_vllm.answers import array_log_probs, choices_of

from pa_middleware.engines.answers import parsed
from pa_middleware.engines.checks import log_prob
from pa_middleware.engines.errors import EngineAnswerError

HUGE = b"1" + b"0" * 400
"""JSON can hold it, and no float."""


def _file(header: bytes, numbers: bytes = b"", version: bytes = b"\x01\x00") -> str:
    """An array of NumPy's format with any header."""
    size = len(header).to_bytes(2 if version == b"\x01\x00" else 4, "little")
    return base64.b64encode(b"\x93NUMPY" + version + size + header + numbers).decode()


def _saved(array: Any) -> str:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.mark.parametrize(("value", "said"), [(HUGE, "none is above 0"), (b"-" + HUGE, "probability 0")])
def test_a_number_that_no_float_holds_is_no_log_prob(value: bytes, said: str) -> None:
    with pytest.raises(EngineAnswerError, match=said):
        log_prob(parsed(value))


def test_what_is_no_log_prob_is_not_shown_whole() -> None:
    for value in ("x" * 10_000, 10**1000):
        with pytest.raises(EngineAnswerError) as caught:
            log_prob(value)
        assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "places", [([0], 1), ("0", 1), (0, "1"), ({}, 1), (None, 1), (0.0, 1), (False, True), (0, 0), (0, 2)], ids=str
)
def test_choices_that_are_not_numbered_from_zero_on_are_an_error(places: tuple[object, ...]) -> None:
    answer = {"model": "m", "choices": [{"index": place} for place in places]}
    with pytest.raises(EngineAnswerError, match="did not number its choices from 0 to 1"):
        choices_of(answer, "m", 2)
    with pytest.raises(EngineAnswerError, match="did not number its choices from 0 to 1"):
        echoed_choices(answer, 2)


def test_an_id_of_thousands_of_digits_is_none() -> None:
    rows = rows_of({"logprobs": {"tokens": ["token_id:" + "1" * 5000, "token_id:7"], "token_logprobs": [-1.0, -1.0]}})
    assert rows.ids == [None, 7]


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, ">f4"])
def test_an_array_is_read_whatever_its_floats_are(kind: Any) -> None:
    read = array_log_probs(_saved(np.array([[-0.5], [-2.0]], kind)), 2)
    assert read.dtype == np.float32
    assert read.tolist() == [-0.5, -2.0]
    second = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1), }\n"
    assert array_log_probs(_file(second, np.float32(-1.0).tobytes(), b"\x02\x00"), 1).tolist() == [-1.0]


@pytest.mark.parametrize(
    "data",
    [
        None,
        "no base64!",
        "",
        base64.b64encode(b"PK\x03\x04").decode(),
        _file(b"{'a':(\n "),
        _file(b"(" * 9000),
        _file(b"{'descr': '|O', 'fortran_order': False, 'shape': (2, 1), }\n"),
        _file(b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 1), }\n", version=b"\x09\x00"),
    ],
    ids=range(8),
)
def test_what_is_no_array_is_an_error(data: object) -> None:
    with pytest.raises(EngineAnswerError, match="the server's log-probs of chosen ids"):
        array_log_probs(data, 2)


@pytest.mark.parametrize(
    "data",
    [
        npy([[-1.0]]),
        npy([-1.0, -1.0]),
        npy([[-1.0, -1.0]]),
        _saved(np.array([[-1], [-1]])),
        _saved(np.array([["a"], ["b"]])),
        _file(b"{'descr': '<f8', 'fortran_order': False, 'shape': (400000000000, 1), }\n"),
        _file(b"{'descr': '<f8', 'fortran_order': False, 'shape': (2, 1), }\n", b"\x00" * 15),
        _file(b"{'descr': '<f8', 'fortran_order': False, 'shape': (2, 1), }\n", b"\x00" * 1000),
    ],
    ids=range(8),
)
def test_an_array_that_holds_anything_but_the_rows_asked_for_is_an_error(data: str) -> None:
    with pytest.raises(EngineAnswerError, match="are not the 2 rows that were asked for"):
        array_log_probs(data, 2)


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), 0.5])
def test_a_number_in_an_array_that_is_no_log_prob_is_an_error(value: float) -> None:
    with pytest.raises(EngineAnswerError, match="log-prob"):
        array_log_probs(npy([[-1.0], [value]]), 2)
