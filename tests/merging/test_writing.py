from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import templates
from safetensors import safe_open
from transformers import PreTrainedModel

from pa_middleware.merging.merge import Merge
from pa_middleware.merging.recipe import METHODS, Method, Recipe
from pa_middleware.merging.sources import LoadedSource
from pa_middleware.merging.writing import shards, write_merged
from pa_middleware.scoring.checkpoints import load
from pa_middleware.scoring.errors import PairError

Build = Callable[..., PreTrainedModel]
TOKENIZER = templates.tokenizer("chatml")


def _save(model: PreTrainedModel, folder: Path, **settings: Any) -> Path:
    model.save_pretrained(folder, **settings)
    TOKENIZER.save_pretrained(folder)
    return folder


@pytest.fixture
def saved(tiny: Build, tmp_path: Path) -> tuple[Path, Path]:
    """A policy in shards and a reference in one file."""
    policy, reference = (tiny("qwen3", len(TOKENIZER), seed=seed) for seed in range(2))
    return _save(policy, tmp_path / "policy", max_shard_size="20KB"), _save(reference, tmp_path / "reference")


def _loaded(folder: Path) -> PreTrainedModel:
    return load(folder, dtype="auto", device="cpu")[0]


@pytest.mark.parametrize("method", METHODS)
def test_the_checkpoint_holds_what_the_loaded_models_merge_to(
    saved: tuple[Path, Path], tmp_path: Path, method: Method
) -> None:
    policy, reference = saved
    write_merged(policy, reference, tmp_path / "out", alpha=0.4, recipe=Recipe(method))
    expected = Merge(LoadedSource(_loaded(policy), "p"), LoadedSource(_loaded(reference), "r"), Recipe(method))
    for name, weight in _loaded(tmp_path / "out").state_dict().items():
        assert weight.equal(expected.weight(name, 0.4))


def test_it_loads_like_the_reference_from_shards(saved: tuple[Path, Path], tmp_path: Path) -> None:
    policy, reference = saved
    out = tmp_path / "new" / "out"
    write_merged(policy, reference, out, alpha=0.0, shard_bytes=20_000)
    index = json.loads((out / "model.safetensors.index.json").read_text())
    files = sorted(path.name for path in out.glob("*.safetensors"))
    assert sorted(set(index["weight_map"].values())) == files
    assert files[0] == f"model-00001-of-{len(files):05}.safetensors"
    for file in files:
        with safe_open(out / file, framework="pt") as weights:
            assert {name for name, where in index["weight_map"].items() if where == file} == set(weights.keys())
    model, tokenizer = load(out, dtype="auto", device="cpu")
    assert tokenizer.get_vocab() == TOKENIZER.get_vocab()
    assert tokenizer.chat_template == TOKENIZER.chat_template
    before = _loaded(reference)
    assert index["metadata"]["total_size"] == sum(weight.nbytes for weight in before.state_dict().values())
    assert all(weight.equal(before.state_dict()[name]) for name, weight in model.state_dict().items())


def test_a_note_says_what_was_merged(saved: tuple[Path, Path], tmp_path: Path) -> None:
    policy, reference = saved
    note = write_merged(policy, reference, tmp_path / "out", alpha=0.5, recipe=Recipe("dare_ties", seed=2))
    assert note == json.loads((tmp_path / "out" / "merge.json").read_text())
    assert note == {
        "merged": "pi_base + alpha * tau",
        "alpha": 0.5,
        "method": "dare_ties",
        "density": 0.2,
        "seed": 2,
        "policy": str(policy),
        "reference": str(reference),
        "extra": [],
        "weights": len(_loaded(reference).state_dict()),
    }


def test_a_merge_of_a_merge_has_its_own_note_and_index(saved: tuple[Path, Path], tmp_path: Path) -> None:
    policy, reference = saved
    write_merged(policy, reference, tmp_path / "sharded", alpha=0.5, shard_bytes=20_000)
    write_merged(policy, tmp_path / "sharded", tmp_path / "whole", alpha=0.25)
    assert json.loads((tmp_path / "whole" / "merge.json").read_text())["alpha"] == 0.25
    assert not (tmp_path / "whole" / "model.safetensors.index.json").exists()
    _loaded(tmp_path / "whole")


def test_extra_policies_and_an_anchor_are_read(tiny: Build, saved: tuple[Path, Path], tmp_path: Path) -> None:
    pytest.importorskip("peft")
    policy, reference = saved
    more = [_save(tiny("qwen3", len(TOKENIZER), seed=seed), tmp_path / str(seed)) for seed in (2, 3)]
    note = write_merged(
        policy, reference, tmp_path / "out", alpha=0.4, recipe=Recipe("emr"), extras=more[:1], anchor=more[1]
    )
    models = [LoadedSource(_loaded(folder), folder.name) for folder in (policy, reference, *more)]
    expected = Merge(models[0], models[1], Recipe("emr"), extras=[models[2]], anchor=models[3])
    assert (note["extra"], note["anchor"], note["emr_scale"]) == ([str(more[0])], str(more[1]), expected.emr_scale)
    for name, weight in _loaded(tmp_path / "out").state_dict().items():
        assert weight.equal(expected.weight(name, 0.4))


def test_tied_checkpoints_stay_tied(tiny: Build, tmp_path: Path) -> None:
    models = [tiny("qwen3", len(TOKENIZER), seed=seed, tie_word_embeddings=True) for seed in range(2)]
    policy, reference = (_save(model, tmp_path / str(number)) for number, model in enumerate(models))
    write_merged(policy, reference, tmp_path / "out", alpha=1.0)
    merged: Any = _loaded(tmp_path / "out")
    assert merged.lm_head.weight is merged.model.embed_tokens.weight
    assert all(weight.equal(models[0].state_dict()[name]) for name, weight in merged.state_dict().items())


def test_another_vocabulary_is_refused(saved: tuple[Path, Path], tmp_path: Path) -> None:
    policy, reference = saved
    templates.tokenizer("llama").save_pretrained(policy)
    with pytest.raises(PairError, match=r"policy and .*reference: the tokenizers differ in"):
        write_merged(policy, reference, tmp_path / "out", alpha=0.5)


def test_a_taken_folder_is_refused(saved: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(FileExistsError, match="is taken; give a folder that is not there yet"):
        write_merged(*saved, saved[1], alpha=0.5)
    (tmp_path / "out").mkdir()
    write_merged(*saved, tmp_path / "out", alpha=0.5)


def test_a_merge_that_fails_leaves_nothing(saved: tuple[Path, Path], tmp_path: Path) -> None:
    policy, reference = saved
    for path in policy.glob("model-0000[2-9]*"):
        path.write_bytes(path.read_bytes()[:-8])
    before = sorted(tmp_path.iterdir())
    with pytest.raises(Exception, match=r"(?i)incomplete|invalid|metadata"):
        write_merged(policy, reference, tmp_path / "out", alpha=0.5)
    assert sorted(tmp_path.iterdir()) == before


def test_a_checkpoint_without_safetensors_is_refused(saved: tuple[Path, Path], tmp_path: Path) -> None:
    policy, reference = saved
    (reference / "model.safetensors").unlink()
    with pytest.raises(PairError, match=r"holds no model\*.safetensors"):
        write_merged(policy, reference, tmp_path / "out", alpha=0.5)


def test_a_weight_in_two_files_is_refused(saved: tuple[Path, Path], tmp_path: Path) -> None:
    policy, reference = saved
    (reference / "model-00001-of-00001.safetensors").write_bytes((reference / "model.safetensors").read_bytes())
    with pytest.raises(PairError, match=r"holds '.*' in model-00001-of-00001.safetensors and in model.safetensors"):
        write_merged(policy, reference, tmp_path / "out", alpha=0.5)


def test_a_place_that_is_no_folder_and_no_hub_name_is_refused(saved: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is neither a folder nor a name on a model hub"):
        write_merged(tmp_path / "none", saved[1], tmp_path / "out", alpha=0.5)


def test_shards_are_filled_in_order() -> None:
    assert shards({"a": 3, "b": 3, "c": 9, "d": 1}, 6) == [["a", "b"], ["c"], ["d"]]
    assert shards({"a": 3}, 1) == [["a"]]


_MEASURED = """
import sys
from pathlib import Path
from pa_middleware.merging.recipe import Recipe
from pa_middleware.merging.writing import write_merged

def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])

small, policy, reference, out = sys.argv[1:]
write_merged(small, small, out + "-small", alpha=0.5, recipe=Recipe("ties"))
before = peak()
write_merged(policy, reference, out, alpha=0.5, recipe=Recipe("ties"), shard_bytes=1 << 21)
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read where Linux tells it")
def test_memory_is_that_of_single_weights_and_not_of_models(tiny: Build, tmp_path: Path) -> None:
    """The largest weight and a file of the result are a small part of a model."""
    size = {"hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 24}
    places = [_save(tiny("llama", len(TOKENIZER)), tmp_path / "small")]
    for seed, role in enumerate(("policy", "reference")):
        places.append(_save(tiny("llama", len(TOKENIZER), seed=seed, **size), tmp_path / role))
    model = (tmp_path / "policy" / "model.safetensors").stat().st_size
    assert model > 48 << 20
    command = [sys.executable, "-c", _MEASURED, *map(str, places), str(tmp_path / "out")]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert int(ran.stdout) * 1024 < model / 2
