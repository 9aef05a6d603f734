"""The shared: fresh with every process's changes, k callers, shared, honest about differences."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from galleries import best
from postgres_server import fresh_pgvector_url
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
from voiceprint.identification import gallery as gallery_module
from voiceprint.identification.gallery import Gallery
from voiceprint.identification.shared_index import IDLE_INDEXES, SharedIndex
from voiceprint.identification.snapshots import IndexSettings

TESTS = str(Path(__file__).parent)
SAVE = f"""
import sys; sys.path.insert(0, {TESTS!r})
from stores import voiceprint
from voiceprint import JSONStorage
JSONStorage(sys.argv[1]).save(voiceprint(sys.argv[2], int(sys.argv[3])))
"""


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    SharedIndex.forget_all()
    yield
    SharedIndex.forget_all()


@pytest.fixture(params=["faiss", "pgvector"])
def shared(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> SharedIndex:
    if request.param == "faiss":
        return SharedIndex("resemblyzer", 256)
    monkeypatch.setattr("voiceprint.identification.server_engine.EXACT_UP_TO", 0)  # always the graph
    return SharedIndex("resemblyzer", 256, IndexSettings(urls=(fresh_pgvector_url(),)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.json"


def first(shared: SharedIndex, storage: Storage, seed: int) -> str | None:
    """The id of the caller with this seed's voice; None without one."""
    found = best(Gallery(storage, shared), unit(seed), 1)
    return found[0].caller_id if found and found[0].similarity > 0.99 else None


def test_an_empty_store_gives_nobody(shared: SharedIndex) -> None:
    assert best(Gallery(MemoryStorage(), shared), unit(0), 5) == []


def test_what_one_handle_enrolls_the_next_search_through_another_finds(
    shared: SharedIndex, path: Path
) -> None:
    one, two = JSONStorage(path), JSONStorage(path)
    assert first(shared, two, 1) is None
    one.save(voiceprint("alice", 1))
    assert first(shared, two, 1) == "alice"
    one.delete("alice")
    assert first(shared, two, 1) is None


def test_what_another_process_enrolls_the_next_search_finds(shared: SharedIndex, path: Path) -> None:
    storage = JSONStorage(path)
    storage.save(voiceprint("bob", 2))
    assert first(shared, storage, 1) is None
    subprocess.run([sys.executable, "-c", SAVE, str(path), "alice", "1"], check=True)
    assert first(shared, storage, 1) == "alice"
    assert first(shared, storage, 2) == "bob"
    assert Gallery(storage, shared).check() == []


def test_a_gallery_too_far_behind_is_built_anew_and_says_so(
    shared: SharedIndex, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("voiceprint.storage.state.MAX_TOMBSTONES", 2)
    storage = JSONStorage(path)
    storage.save_many([voiceprint(f"c{n}", n) for n in range(6)])
    assert first(shared, storage, 5) == "c5"
    old = Gallery(storage, shared).refresh()
    for n in range(4):
        storage.delete(f"c{n}")
    assert [first(shared, storage, n) for n in range(6)] == [None] * 4 + ["c4", "c5"]
    assert Gallery(storage, shared).refresh() is not old
    assert "anew" in caplog.text
    assert Gallery(storage, shared).check() == []


def test_a_file_put_in_place_of_another_is_followed(shared: SharedIndex, path: Path, tmp_path: Path) -> None:
    other = JSONStorage(tmp_path / "other.json")
    other.save(voiceprint("mallory", 9))
    storage = JSONStorage(path)
    storage.save(voiceprint("alice", 1))
    assert first(shared, storage, 1) == "alice"
    path.write_bytes(other.file_path.read_bytes())
    storage = JSONStorage(path)
    assert (first(shared, storage, 1), first(shared, storage, 9)) == (None, "mallory")


def test_another_store_at_the_same_place_and_revision_is_never_taken_for_the_old_one(
    path: Path, tmp_path: Path
) -> None:
    storage = JSONStorage(path)
    storage.save_many([voiceprint(f"old {n}", n) for n in range(20)])
    assert first(SharedIndex.of_process(storage.location, "resemblyzer", 256), storage, 1) == "old 1"
    storage.close()
    other = JSONStorage(tmp_path / "other.json")
    other.save_many([voiceprint(f"new {n}", 100 + n) for n in range(20)])
    path.write_bytes(other.file_path.read_bytes())
    forget_json_files()  # as when this process has opened many other files since
    storage = JSONStorage(path)
    shared = SharedIndex.of_process(storage.location, "resemblyzer", 256)
    assert [first(shared, storage, 100 + n) for n in range(20)] == [f"new {n}" for n in range(20)]
    assert first(shared, storage, 1) is None


@pytest.mark.parametrize("k", [1, 2, 5, 20, 30])
def test_k_distinct_callers_come_back_however_many_prints_each_has(shared: SharedIndex, k: int) -> None:
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
    found = best(Gallery(storage, shared), probe, k)
    wanted: dict[str, float] = {}
    for print_ in storage.get_all():
        score = float(probe @ print_.embedding)
        wanted[print_.caller_id] = max(score, wanted.get(print_.caller_id, -1))
    ranked = sorted(wanted, key=lambda name: -wanted[name])[:k]
    assert [scored.caller_id for scored in found] == ranked
    assert np.allclose([scored.similarity for scored in found], [wanted[name] for name in ranked], atol=1e-6)


def test_a_caller_with_far_more_prints_than_the_limit_does_not_hide_the_next(shared: SharedIndex) -> None:
    storage = MemoryStorage()
    storage.save_many([Voiceprint("many", unit(0)) for _ in range(50)], max_voiceprints=50)
    storage.save(voiceprint("next", 1))
    assert [scored.caller_id for scored in best(Gallery(storage, shared), unit(0), 2)] == ["many", "next"]


def test_equal_similarities_come_in_the_order_of_caller_ids(shared: SharedIndex) -> None:
    storage = MemoryStorage()
    storage.save_many([Voiceprint(name, unit(0)) for name in ("c", "a", "b")])
    assert [scored.caller_id for scored in best(Gallery(storage, shared), unit(0), 3)] == ["a", "b", "c"]


def test_only_the_prints_of_its_own_space_are_found(shared: SharedIndex) -> None:
    storage = MemoryStorage()
    storage.save(voiceprint("alice", 1))
    storage.save(Voiceprint("bob", unit(1), encoder="other"))
    assert [scored.caller_id for scored in best(Gallery(storage, shared), unit(1), 5)] == ["alice"]
    other = SharedIndex("other", 256)
    assert [scored.caller_id for scored in best(Gallery(storage, other), unit(1), 5)] == ["bob"]


def test_a_print_that_moves_to_another_space_while_it_is_searched_for_is_not_compared(
    shared: SharedIndex,
) -> None:
    class Moving(MemoryStorage):
        """Another process is quicker, between the search of the index and the reading of the records."""

        def callers_of(self, ids):
            self.save(voiceprint("alice", 1, encoder="other", id=1))
            return super().callers_of(ids)

    storage = Moving()
    storage.save(voiceprint("alice", 1))
    assert best(Gallery(storage, shared), unit(1), 1) == []


def test_embeddings_of_another_length_are_told(shared: SharedIndex) -> None:
    storage = MemoryStorage()
    storage.save(Voiceprint("alice", unit(1, 8), encoder="other"))
    wrong = SharedIndex("other", 16)
    for _ in range(2):
        with pytest.raises(StorageCorruptError, match="8 values"):
            best(Gallery(storage, wrong), unit(1, 16), 1)
    empty = MemoryStorage()
    late = SharedIndex("other", 16)
    best(Gallery(empty, late), unit(1, 16), 1)
    empty.save(Voiceprint("alice", unit(1, 8), encoder="other"))
    with pytest.raises(StorageCorruptError, match="8 values"):
        best(Gallery(empty, late), unit(1, 16), 1)


def test_check_tells_of_what_only_one_side_has() -> None:
    storage, shared = MemoryStorage(), SharedIndex("resemblyzer", 256)
    ids = [print_.id for print_ in storage.save_many([voiceprint(f"c{n}", n) for n in range(3)])]
    assert Gallery(storage, shared).check() == []
    index = Gallery(storage, shared).refresh()
    index.remove([ids[1]])
    index.add([999], [unit(5)])
    findings = Gallery(storage, shared).check()
    assert [(finding.code, finding.place) for finding in findings] == [
        ("not_indexed", f"voiceprint {ids[1]}"),
        ("not_stored", "voiceprint 999"),
    ]
    assert (
        len(best(Gallery(storage, shared), unit(5), 9)) == 2
    )  # what the store does not have, no one is told of


def test_handles_on_one_store_share_a_gallery_and_other_spaces_have_their_own(path: Path) -> None:
    one, two = JSONStorage(path), JSONStorage(path)
    shared = SharedIndex.of_process(one.location, "resemblyzer", 256)
    assert SharedIndex.of_process(two.location, "resemblyzer", 256) is shared
    assert SharedIndex.of_process(two.location, "other", 256) is not shared
    assert SharedIndex.of_process(MemoryStorage().location, "resemblyzer", 256) is not shared


def test_the_galleries_last_used_are_kept_when_nobody_uses_them() -> None:
    stores = [MemoryStorage() for _ in range(IDLE_INDEXES + 1)]
    gone = [
        weakref.ref(SharedIndex.of_process(storage.location, "resemblyzer", 256)) for storage in stores[:-1]
    ]
    SharedIndex.of_process(stores[0].location, "resemblyzer", 256)
    SharedIndex.of_process(stores[-1].location, "resemblyzer", 256)
    gc.collect()
    assert [reference() is None for reference in gone] == [False, True, False, False]


def test_a_gallery_in_use_is_never_forgotten() -> None:
    stores = [MemoryStorage() for _ in range(3 * IDLE_INDEXES)]
    galleries = [SharedIndex.of_process(storage.location, "resemblyzer", 256) for storage in stores]
    assert [SharedIndex.of_process(storage.location, "resemblyzer", 256) for storage in stores] == galleries


def test_a_recognizer_keeps_the_index_of_its_store_however_many_there_are() -> None:
    recognizers = [
        OpusAgentVoiceRecognizer(MemoryStorage(), encoder=BandEncoder()) for _ in range(3 * IDLE_INDEXES)
    ]
    galleries = []
    for _ in range(2):
        for recognizer in recognizers:
            assert recognizer.check() == []
            galleries.append(recognizer._built.gallery._shared)
    assert len({id(shared) for shared in galleries}) == len(recognizers)


def test_the_callers_of_a_space_are_counted_without_those_of_other_spaces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    storage = MemoryStorage()
    storage.save_many([voiceprint(f"c{n}", n, encoder="old") for n in range(500)])
    storage.save_many([voiceprint(f"c{n % 120}", n) for n in range(300)])  # two or three each
    storage.save(voiceprint("c7", 999))
    assert Gallery(storage, SharedIndex("resemblyzer", 256)).count_callers() == 120
    assert Gallery(storage, SharedIndex("old", 8)).count_callers() == 500
    monkeypatch.setattr(gallery_module, "_SAMPLED", 100)
    assert 100 <= Gallery(storage, SharedIndex("resemblyzer", 256)).count_callers() <= 140
    assert Gallery(storage, SharedIndex("old", 8)).count_callers() == 500
    assert Gallery(MemoryStorage(), SharedIndex("old", 8)).count_callers() == 0
