from __future__ import annotations

from pathlib import Path

import pytest

from pa_middleware.scoring.errors import PairError
from pa_middleware.scoring.named_pairs import PAPER, find_pair


@pytest.mark.parametrize("name", PAPER)
def test_a_name_of_the_registry_gives_the_papers_models_in_any_case(name: str) -> None:
    policy, reference = find_pair(f" {name.upper()} ")
    assert (policy, reference) == PAPER[name]
    assert policy.split("/")[0] == reference.split("/")[0]
    assert policy != reference


def test_the_demos_pair_is_found_where_the_demos_are() -> None:
    for folder in find_pair("taxi"):
        assert (Path(folder) / "model.safetensors").is_file()


def test_a_folder_that_holds_a_pair_names_it(tmp_path: Path) -> None:
    folder = tmp_path / "a,b"
    for role in ("policy", "reference"):
        (folder / role).mkdir(parents=True)
    assert find_pair(str(folder)) == (str(folder / "policy"), str(folder / "reference"))


def test_two_models_are_given_with_a_comma_and_need_not_be_folders() -> None:
    assert find_pair("org/policy, ./reference") == ("org/policy", "./reference")


@pytest.mark.parametrize("text", ["", "qwen", "org/model", "a,", ",b", "a,b,c"])
def test_anything_else_is_an_error_that_lists_what_is_allowed(text: str) -> None:
    with pytest.raises(PairError) as error:
        find_pair(text)
    for part in (repr(text), *PAPER, "taxi", "POLICY,REFERENCE"):
        assert part in str(error.value)


def test_the_error_names_what_was_nearly_written() -> None:
    with pytest.raises(PairError, match=r"Did you mean qwen3-14b"):
        find_pair("qwen3-14")


def test_a_folder_that_holds_no_pair_is_an_error_that_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "policy").mkdir()
    with pytest.raises(PairError, match=r"holds no folder 'reference'"):
        find_pair(str(tmp_path))
