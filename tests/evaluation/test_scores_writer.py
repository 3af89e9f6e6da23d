from __future__ import annotations

from pathlib import Path

import pytest

from pa_middleware.evaluation.errors import EvaluationError
from pa_middleware.evaluation.scores_file import header_line
from pa_middleware.evaluation.scores_writer import ScoresWriter

HEADER = {"policy": "p", "shard": "0/1"}
BATCHES = [["a", "b"], ["c"], ["d", "e"]]


def _pass(file: Path, batches: list[list[str]] = BATCHES, *, overwrite: bool = False) -> list[str]:
    """Writes what is not there and answers which runs those were."""
    written = []
    with ScoresWriter(file, HEADER, overwrite=overwrite) as writer:
        for batch in batches:
            if not writer.holds(batch):
                writer.write([f'{{"run": "{run}"}}\n' for run in batch])
                written += batch
        writer.finish()
    return written


def test_wherever_a_file_was_torn_it_ends_with_the_same_bytes_and_whole_batches_are_not_written_again(
    tmp_path: Path,
) -> None:
    file = tmp_path / "new" / "scores.jsonl"
    assert _pass(file) == ["a", "b", "c", "d", "e"]
    whole = file.read_bytes()
    for size in range(len(whole)):
        file.write_bytes(whole[:size])
        lines = whole[:size].count(b"\n") - 1
        done = max((n for n in (0, 2, 3, 5) if n <= lines), default=0)
        assert _pass(file) == ["a", "b", "c", "d", "e"][done:]
        assert file.read_bytes() == whole
    assert _pass(file) == []


def test_a_batch_is_on_disk_before_the_next_one_is_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "scores.jsonl"
    with ScoresWriter(file, HEADER) as writer:
        assert file.read_text(encoding="utf-8") == header_line(HEADER)
        writer.write(['{"run": "a"}\n'])
        assert file.read_text(encoding="utf-8") == header_line(HEADER) + '{"run": "a"}\n'


@pytest.mark.parametrize(
    ("held", "message"),
    [
        (header_line(HEADER | {"policy": "q"}), "is of another pass, which differs in policy; give another file"),
        (header_line(HEADER | {"shard": "1/2"}), "differs in shard"),
        (header_line({**HEADER, "beta": 2.0}), "differs in beta"),
        (header_line(dict(reversed(HEADER.items()))), "differs in how it is written"),
        ("some notes\n", "line 1: no JSON"),
        ('{"policy": "p"}\n', "is no file of scores"),
        ("some notes", "holds no scores"),
        (header_line(HEADER) + "some notes\n", "line 2: no JSON"),
    ],
)
def test_another_file_is_not_touched_unless_it_may_be_overwritten(tmp_path: Path, held: str, message: str) -> None:
    file = tmp_path / "scores.jsonl"
    file.write_text(held, encoding="utf-8")
    with pytest.raises(EvaluationError, match=message):
        _pass(file)
    assert file.read_text(encoding="utf-8") == held
    assert _pass(file, overwrite=True) == ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([["a", "x"], ["c"], ["d", "e"]], "holds other runs where 'a' is due: the source has changed"),
        ([["a", "b"], ["c"]], "holds 2 runs more than the source, such as 'd'"),
    ],
)
def test_a_source_that_changed_is_noticed_and_what_is_written_stays(
    tmp_path: Path, batches: list[list[str]], message: str
) -> None:
    file = tmp_path / "scores.jsonl"
    _pass(file)
    whole = file.read_bytes()
    with pytest.raises(EvaluationError, match=message):
        _pass(file, batches)
    assert file.read_bytes() == whole
