"""Embeddings kept on the disk."""

from __future__ import annotations

import logging
import stat
from pathlib import Path

import numpy as np
import pytest

from voiceprint.evaluation import EmbeddingCache

AUDIO = np.linspace(-1, 1, 1000, dtype=np.float32)
EMBEDDING = np.arange(8, dtype=np.float32) / 10


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_what_is_kept_is_found_by_another_cache_of_the_same_folder(tmp_path: Path) -> None:
    EmbeddingCache(tmp_path / "c").put("bands", AUDIO, EMBEDDING)
    cache = EmbeddingCache(tmp_path / "c")
    found = cache.get("bands", 8, AUDIO.copy())
    assert found is not None
    assert np.array_equal(found, EMBEDDING)
    assert found.flags.writeable
    assert (cache.hits, cache.misses) == (1, 0)


def test_other_audio_another_encoder_and_another_dimension_find_nothing(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path)
    cache.put("bands", AUDIO, EMBEDDING)
    other = AUDIO.copy()
    other[500] = np.nextafter(other[500], 2)
    assert cache.get("bands", 8, other) is None
    assert cache.get("bands2", 8, AUDIO) is None
    assert cache.get("bands", 9, AUDIO) is None
    assert cache.misses == 3


def test_files_and_folders_are_for_their_owner_alone(tmp_path: Path) -> None:
    EmbeddingCache(tmp_path / "c").put("bands", AUDIO, EMBEDDING)
    (file,) = files(tmp_path)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [stat.S_IMODE(path.stat().st_mode) for path in (file.parent, file.parent.parent)] == [0o700] * 2


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied", "folder"])
def test_a_damaged_file_counts_as_missing_and_is_replaced(tmp_path: Path, damage: str) -> None:
    cache = EmbeddingCache(tmp_path)
    cache.put("bands", AUDIO, EMBEDDING)
    (file,) = files(tmp_path)
    content = bytearray(file.read_bytes())
    if damage == "flipped":
        content[-1] ^= 1
        file.write_bytes(content)
    elif damage == "folder":
        file.unlink()
        file.mkdir()
    else:
        file.write_bytes(content[: -1 if damage == "cut" else 0])
    assert cache.get("bands", 8, AUDIO) is None
    if damage == "folder":
        return
    cache.put("bands", AUDIO, EMBEDDING)
    assert cache.get("bands", 8, AUDIO) is not None


def test_a_folder_that_cannot_be_written_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "c").write_bytes(b"a file")
    cache = EmbeddingCache(tmp_path / "c")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert cache.get("bands", 8, AUDIO) is None
            cache.put("bands", AUDIO, EMBEDDING)
    assert len(caplog.records) == 1
    assert "Embeddings cannot be cached in" in caplog.text
