"""The gallery: fresh with every process's changes, k callers, shared, honest about differences."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from stores import forget_json_files, unit, voiceprint
from voices import BandEncoder

from voiceprint import (
    JSONStorage,
    MemoryStorage,
    OpusAgentVoiceRecognizer,
    Storage,
    StorageCorruptError,
    Voiceprint,
)
from voiceprint.identification.gallery import KEPT_GALLERIES, Gallery

TESTS = str(Path(__file__).parent)
SAVE = f"""
import sys; sys.path.insert(0, {TESTS!r})
from stores import voiceprint
from voiceprint import JSONStorage
JSONStorage(sys.argv[1]).save(voiceprint(sys.argv[2], int(sys.argv[3])))
"""


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    Gallery.forget_all()
    yield
    Gallery.forget_all()


@pytest.fixture
def gallery() -> Gallery:
    return Gallery("resemblyzer", 256)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.json"


def first(gallery: Gallery, storage: Storage, seed: int) -> str | None:
    """Who the caller with this seed's voice is."""
    found = gallery.best(storage, unit(seed), 1)
    return found[0].voiceprint.caller_id if found and found[0].similarity > 0.99 else None


def test_an_empty_store_gives_nobody(gallery: Gallery) -> None:
    assert gallery.best(MemoryStorage(), unit(0), 5) == []


def test_what_one_handle_enrolls_the_next_search_through_another_finds(gallery: Gallery, path: Path) -> None:
    one, two = JSONStorage(path), JSONStorage(path)
    assert first(gallery, two, 1) is None
    one.save(voiceprint("alice", 1))
    assert first(gallery, two, 1) == "alice"
    one.delete("alice")
    assert first(gallery, two, 1) is None


def test_what_another_process_enrolls_the_next_search_finds(gallery: Gallery, path: Path) -> None:
    storage = JSONStorage(path)
    storage.save(voiceprint("bob", 2))
    assert first(gallery, storage, 1) is None
    subprocess.run([sys.executable, "-c", SAVE, str(path), "alice", "1"], check=True)
    assert first(gallery, storage, 1) == "alice"
    assert first(gallery, storage, 2) == "bob"
    assert gallery.check(storage) == []


def test_a_gallery_too_far_behind_is_built_anew_and_says_so(
    gallery: Gallery, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("voiceprint.storage.records.MAX_TOMBSTONES", 2)
    storage = JSONStorage(path)
    storage.save_many([voiceprint(f"c{n}", n) for n in range(6)])
    assert first(gallery, storage, 5) == "c5"
    old = gallery.synchronized(storage)
    for n in range(4):
        storage.delete(f"c{n}")
    assert [first(gallery, storage, n) for n in range(6)] == [None] * 4 + ["c4", "c5"]
    assert gallery.synchronized(storage) is not old
    assert "anew" in caplog.text
    assert gallery.check(storage) == []


def test_a_file_put_in_place_of_another_is_followed(gallery: Gallery, path: Path, tmp_path: Path) -> None:
    other = JSONStorage(tmp_path / "other.json")
    other.save(voiceprint("mallory", 9))
    storage = JSONStorage(path)
    storage.save(voiceprint("alice", 1))
    assert first(gallery, storage, 1) == "alice"
    path.write_bytes(other.path.read_bytes())
    storage = JSONStorage(path)
    assert (first(gallery, storage, 1), first(gallery, storage, 9)) == (None, "mallory")


def test_another_store_at_the_same_place_and_revision_is_never_taken_for_the_old_one(
    path: Path, tmp_path: Path
) -> None:
    storage = JSONStorage(path)
    storage.save_many([voiceprint(f"old {n}", n) for n in range(20)])
    assert first(Gallery.shared(storage, "resemblyzer", 256), storage, 1) == "old 1"
    storage.close()
    other = JSONStorage(tmp_path / "other.json")
    other.save_many([voiceprint(f"new {n}", 100 + n) for n in range(20)])
    path.write_bytes(other.path.read_bytes())
    forget_json_files()  # as when this process has opened many other files since
    storage = JSONStorage(path)
    gallery = Gallery.shared(storage, "resemblyzer", 256)
    assert [first(gallery, storage, 100 + n) for n in range(20)] == [f"new {n}" for n in range(20)]
    assert first(gallery, storage, 1) is None


@pytest.mark.parametrize("k", [1, 2, 5, 20, 30])
def test_k_distinct_callers_come_back_however_many_prints_each_has(gallery: Gallery, k: int) -> None:
    storage = MemoryStorage()
    rng, probe = np.random.default_rng(0), unit(0)
    near = {n: unit(0) + (n + 1) * 0.02 * rng.standard_normal(256) for n in range(20)}
    storage.save_many(
        [
            Voiceprint(f"c{n}", vector + 1e-3 * rng.standard_normal(256))
            for n, vector in near.items()
            for _ in range(3)
        ]
    )
    found = gallery.best(storage, probe, k)
    wanted: dict[str, float] = {}
    for print_ in storage.get_all():
        score = float(probe @ print_.embedding)
        wanted[print_.caller_id] = max(score, wanted.get(print_.caller_id, -1))
    ranked = sorted(wanted, key=lambda name: -wanted[name])[:k]
    assert [scored.voiceprint.caller_id for scored in found] == ranked
    assert np.allclose([scored.similarity for scored in found], [wanted[name] for name in ranked], atol=1e-6)


def test_a_caller_with_far_more_prints_than_the_limit_does_not_hide_the_next(gallery: Gallery) -> None:
    storage = MemoryStorage()
    storage.save_many([Voiceprint("many", unit(0)) for _ in range(50)], max_voiceprints=50)
    storage.save(voiceprint("next", 1))
    assert [scored.voiceprint.caller_id for scored in gallery.best(storage, unit(0), 2)] == ["many", "next"]


def test_equal_similarities_come_in_the_order_of_caller_ids(gallery: Gallery) -> None:
    storage = MemoryStorage()
    storage.save_many([Voiceprint(name, unit(0)) for name in ("c", "a", "b")])
    assert [scored.voiceprint.caller_id for scored in gallery.best(storage, unit(0), 3)] == ["a", "b", "c"]


def test_only_the_prints_of_its_own_space_are_found(gallery: Gallery) -> None:
    storage = MemoryStorage()
    storage.save(voiceprint("alice", 1))
    storage.save(Voiceprint("bob", unit(1), encoder="other"))
    assert [scored.voiceprint.caller_id for scored in gallery.best(storage, unit(1), 5)] == ["alice"]
    other = Gallery("other", 256)
    assert [scored.voiceprint.caller_id for scored in other.best(storage, unit(1), 5)] == ["bob"]


def test_a_print_that_moves_to_another_space_while_it_is_searched_for_is_not_compared(
    gallery: Gallery,
) -> None:
    class Moving(MemoryStorage):
        """Another process is quicker, between the search of the index and the reading of the records."""

        def callers_of(self, ids):
            self.save(voiceprint("alice", 1, encoder="other", id=1))
            return super().callers_of(ids)

    storage = Moving()
    storage.save(voiceprint("alice", 1))
    assert gallery.best(storage, unit(1), 1) == []


def test_embeddings_of_another_length_are_told(gallery: Gallery) -> None:
    storage = MemoryStorage()
    storage.save(Voiceprint("alice", unit(1, 8), encoder="other"))
    wrong = Gallery("other", 16)
    for _ in range(2):
        with pytest.raises(StorageCorruptError, match="8 values"):
            wrong.best(storage, unit(1, 16), 1)
    empty = MemoryStorage()
    late = Gallery("other", 16)
    late.best(empty, unit(1, 16), 1)
    empty.save(Voiceprint("alice", unit(1, 8), encoder="other"))
    with pytest.raises(StorageCorruptError, match="8 values"):
        late.best(empty, unit(1, 16), 1)


def test_check_tells_of_what_only_one_side_has(gallery: Gallery) -> None:
    storage = MemoryStorage()
    ids = [print_.id for print_ in storage.save_many([voiceprint(f"c{n}", n) for n in range(3)])]
    assert gallery.check(storage) == []
    index = gallery.synchronized(storage)
    index.remove([ids[1]])
    index.add([999], [unit(5)])
    findings = gallery.check(storage)
    assert [(finding.code, finding.place) for finding in findings] == [
        ("not_indexed", f"voiceprint {ids[1]}"),
        ("not_stored", "voiceprint 999"),
    ]
    assert len(gallery.best(storage, unit(5), 9)) == 2  # what the store does not have, no one is told of


def test_handles_on_one_store_share_a_gallery_and_other_spaces_have_their_own(path: Path) -> None:
    one, two = JSONStorage(path), JSONStorage(path)
    gallery = Gallery.shared(one, "resemblyzer", 256)
    assert Gallery.shared(two, "resemblyzer", 256) is gallery
    assert Gallery.shared(two, "other", 256) is not gallery
    assert Gallery.shared(MemoryStorage(), "resemblyzer", 256) is not gallery


def test_the_galleries_last_used_are_kept_when_nobody_uses_them() -> None:
    stores = [MemoryStorage() for _ in range(KEPT_GALLERIES + 1)]
    gone = [weakref.ref(Gallery.shared(storage, "resemblyzer", 256)) for storage in stores[:-1]]
    Gallery.shared(stores[0], "resemblyzer", 256)
    Gallery.shared(stores[-1], "resemblyzer", 256)
    gc.collect()
    assert [reference() is None for reference in gone] == [False, True, False, False]


def test_a_gallery_in_use_is_never_forgotten() -> None:
    stores = [MemoryStorage() for _ in range(3 * KEPT_GALLERIES)]
    galleries = [Gallery.shared(storage, "resemblyzer", 256) for storage in stores]
    assert [Gallery.shared(storage, "resemblyzer", 256) for storage in stores] == galleries


def test_a_recognizer_keeps_the_index_of_its_store_however_many_there_are() -> None:
    recognizers = [
        OpusAgentVoiceRecognizer(MemoryStorage(), encoder=BandEncoder()) for _ in range(3 * KEPT_GALLERIES)
    ]
    galleries = []
    for _ in range(2):
        for recognizer in recognizers:
            assert recognizer.check() == []
            galleries.append(recognizer._gallery)
    assert len({id(gallery) for gallery in galleries}) == len(recognizers)
