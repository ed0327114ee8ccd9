"""Adapters of local models: which file is one, and on which base it runs."""

import struct
from pathlib import Path
from typing import Any

import pytest

from icrl_graph.models.gguf import BASE_HASH, facts, sha256
from icrl_graph.models.local import _files_of


def gguf(path: Path, told: dict[str, Any]) -> Path:
    """A GGUF file without weights: texts, whole numbers and lists of texts."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value.encode())) + value.encode()

    def fact(value: Any) -> bytes:
        if isinstance(value, list):
            return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(text, value))
        return struct.pack("<II", 4, value) if isinstance(value, int) else struct.pack("<I", 8) + text(value)

    body = b"".join(text(name) + fact(value) for name, value in told.items())
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, len(told)) + body)
    return path


def test_the_facts_before_the_first_list_are_read(tmp_path: Path) -> None:
    path = gguf(tmp_path / "x.gguf", {"general.type": "model", "size": 7, "words": ["a"], "later": "b"})
    assert facts(path) == {"general.type": "model", "size": 7}


@pytest.mark.parametrize("cut", [5, 20, 30, 41])
def test_a_header_that_is_cut_short_is_refused(cut: int, tmp_path: Path) -> None:
    path = gguf(tmp_path / "x.gguf", {"general.type": "model", "size": 7})
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ValueError, match=r"x.gguf' is a damaged GGUF file"):
        facts(path)


def test_a_length_that_no_text_has_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1 << 60))
    with pytest.raises(ValueError, match="is a damaged GGUF file"):
        facts(tmp_path / "x.gguf")


def test_an_adapter_runs_on_the_base_whose_hash_it_names(tmp_path: Path) -> None:
    base = gguf(tmp_path / "base.gguf", {"general.type": "model"})
    adapter = gguf(tmp_path / "adapter.gguf", {"general.type": "adapter", BASE_HASH: sha256(base)})
    assert _files_of(str(adapter), str(base)) == (base, adapter)
    assert _files_of(str(base), None) == (base, None)


def test_an_adapter_of_another_base_is_refused_with_both_hashes(tmp_path: Path) -> None:
    base = gguf(tmp_path / "base.gguf", {"general.type": "model"})
    adapter = gguf(tmp_path / "adapter.gguf", {"general.type": "adapter", BASE_HASH: "f00"})
    with pytest.raises(ValueError, match=f"was trained on a file of sha256 f00, and .* has {sha256(base)}"):
        _files_of(str(adapter), str(base))


def test_an_adapter_that_does_not_tell_its_base_needs_one(tmp_path: Path) -> None:
    adapter = gguf(tmp_path / "adapter.gguf", {"general.type": "adapter"})
    with pytest.raises(ValueError, match="does not tell what it was trained on: give the model's file as base"):
        _files_of(str(adapter), None)
    base = gguf(tmp_path / "base.gguf", {"general.type": "model"})
    assert _files_of(str(adapter), str(base)) == (base, adapter)


def test_a_base_for_a_whole_model_is_refused(tmp_path: Path) -> None:
    base = gguf(tmp_path / "base.gguf", {"general.type": "model"})
    with pytest.raises(ValueError, match="a base is for an adapter"):
        _files_of(str(base), str(base))
