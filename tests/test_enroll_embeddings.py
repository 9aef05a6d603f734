"""`enroll_embeddings`: a matrix of own embeddings, checked as a whole and stored in blocks."""

from __future__ import annotations

import gc
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from stores import unit

from voiceprint import (
    DisabledError,
    ExternalEncoder,
    InvalidArgumentError,
    MemoryStorage,
    OpusAgentVoiceRecognizer,
    SQLiteStorage,
    StorageError,
)
from voiceprint.enrollment import own_embeddings

DIMENSION = 16


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_embeddings, "ROWS_TOGETHER", 10)


@pytest.fixture
def external() -> OpusAgentVoiceRecognizer:
    """A recognizer for embeddings of 16 values, over an empty store in memory."""
    return OpusAgentVoiceRecognizer(MemoryStorage(), encoder=ExternalEncoder("elsewhere", DIMENSION))


def matrix(rows: int, seed: int = 0) -> NDArray[np.float32]:
    """Random rows of length 1."""
    vectors = np.random.default_rng(seed).standard_normal((rows, DIMENSION))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_every_row_is_stored_as_enroll_caller_stores_it_and_its_id_is_returned(
    external: OpusAgentVoiceRecognizer,
) -> None:
    names = [f"caller {n * 7919 % 35}" for n in range(35)]
    vectors, metadata = matrix(35), [{"n": n} if n % 2 else None for n in range(35)]
    done: list[int] = []
    ids = external.enroll_embeddings(names, vectors, metadata, encoder="elsewhere", progress=done.append)
    assert (ids.dtype, ids.shape, done) == (np.int64, (35,), [10, 20, 30, 35])
    other = OpusAgentVoiceRecognizer(MemoryStorage(), encoder=external.encoder)
    for name, vector, one in zip(names, vectors, metadata, strict=True):
        other.enroll_caller(name, embedding=vector, metadata=one)
    for id_, name, vector in zip(ids.tolist(), names, vectors, strict=True):
        stored = external.storage.get_many([id_])[id_]
        expected = other.get_caller(name)
        assert expected is not None
        assert (stored.caller_id, stored.metadata) == (name, expected.metadata)
        assert np.array_equal(stored.embedding, vector)  # to the bit
        assert np.array_equal(stored.embedding, expected.voiceprints[0].embedding)
        assert stored.created_at == stored.last_seen
    assert external.check() == []
    assert [external.identify(embedding=row, k=1)[0].caller_id for row in vectors] == names


def test_rows_of_one_caller_are_stored_in_order_up_to_the_limit(external: OpusAgentVoiceRecognizer) -> None:
    vectors = matrix(25)
    names = ["alice" if n % 5 == 0 else f"c{n}" for n in range(25)]
    ids = external.enroll_embeddings(names, vectors)
    alice = external.get_caller("alice")
    assert alice is not None
    assert [one.id for one in alice.voiceprints] == ids[[10, 15, 20]].tolist()
    assert np.array_equal(alice.voiceprints[-1].embedding, vectors[20])
    assert external.storage.count() == 23


def test_rows_of_any_length_and_type_are_scaled_and_the_matrix_is_not_changed(
    external: OpusAgentVoiceRecognizer,
) -> None:
    vectors = matrix(6).astype(np.float64)
    given = vectors * np.array([1.0, 3.0, 1e200, 1e-200, 1 + 1e-6, 250.0])[:, None]
    before = given.copy()
    external.enroll_embeddings([f"c{n}" for n in range(6)], given)
    assert np.array_equal(given, before)
    external.enroll_embeddings(["half"], given[5:].astype(np.float16))
    external.enroll_embeddings(["list"], given[5:].tolist())
    external.enroll_embeddings(("int",), np.round(given[5:]).astype(np.int16))
    for name, row in {**{f"c{n}": n for n in range(6)}, "half": 5, "list": 5, "int": 5}.items():
        caller = external.get_caller(name)
        assert caller is not None
        (stored,) = caller.voiceprints
        assert stored.embedding.dtype == np.float32
        assert float(stored.embedding @ vectors[row]) > (0.9999 if name == "int" else 0.999999)
        assert float(np.linalg.norm(stored.embedding)) == pytest.approx(1, abs=1e-6)


def test_a_memory_mapped_file_and_numpy_ids_are_enrolled(
    external: OpusAgentVoiceRecognizer, tmp_path: Path
) -> None:
    np.save(tmp_path / "rows.npy", matrix(12))
    names = np.array([f"c{n}" for n in range(12)])
    ids = external.enroll_embeddings(names, np.load(tmp_path / "rows.npy", mmap_mode="r"))
    assert len(set(ids.tolist())) == 12
    assert external.storage.count_callers() == 12


def test_no_rows_enroll_nobody(external: OpusAgentVoiceRecognizer) -> None:
    assert external.enroll_embeddings([], np.empty((0, DIMENSION))).tolist() == []
    assert external.storage.count() == 0


def bad(row: int, value: float) -> NDArray[np.float32]:
    """25 rows, of which one holds a value that no embedding has."""
    vectors = matrix(25)
    vectors[row, 3] = value
    if not value:
        vectors[row] = 0
    return vectors


NAMES = [f"c{n}" for n in range(25)]
SIGNALING_NAN = np.frombuffer(b"\x01\x00\xa0\x7f", dtype="<f4")[0]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((NAMES, bad(17, np.nan)), r"Row 17: The embedding holds NaN.*Nothing was stored"),
        ((NAMES, bad(17, SIGNALING_NAN)), "Row 17: The embedding holds NaN"),
        ((NAMES, bad(24, np.inf)), "Row 24: The embedding holds NaN or infinite"),
        ((NAMES, bad(0, 0.0)), "Row 0: The embedding is all zero"),
        ((NAMES[:24], matrix(25)), "caller_ids has 24 items, and embeddings has 25 rows"),
        ((NAMES, matrix(24)), "caller_ids has 25 items, and embeddings has 24 rows"),
        (([*NAMES[:11], "", *NAMES[12:]], matrix(25)), "Row 11: The caller id is empty"),
        (([*NAMES[:11], 7, *NAMES[12:]], matrix(25)), "Row 11: A caller id is a str"),
        (("c" * 25, matrix(25)), "caller_ids is of type str"),
        ((None, matrix(25)), "caller_ids is of type NoneType"),
        ((NAMES, matrix(25), [{}] * 24), "metadata has 24 items"),
        ((NAMES, matrix(25), {"a": 1}), "metadata is of type dict"),
        ((NAMES, matrix(25), [{}] * 20 + [{"a": {1}}] + [None] * 4), "Row 20: The metadata holds a set"),
        ((NAMES, np.ma.masked_less(matrix(25), 0.0)), "masked array"),
        ((NAMES, matrix(25)[:, :8]), r"shape \(25, 8\): \[n, 16\] is allowed"),
        ((["c"], unit(1, DIMENSION)), r"shape \(16,\)"),
        ((["c", "d"], [[1.0] * 16, [1.0] * 15]), r"a list of object: numbers \[n, 16\]"),
        ((["c"], [["1"] * 16]), "numbers"),
        ((["c"], np.ones((1, 16), bool)), "ndarray of bool"),
        ((["c"], np.ones((1, 16), complex)), "ndarray of complex128"),
    ],
)
def test_a_bad_row_is_named_before_anything_is_stored(
    external: OpusAgentVoiceRecognizer, given: tuple[Any, ...], message: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        external.enroll_embeddings(*given)
    assert external.storage.revision() == 0


def test_another_space_is_refused(external: OpusAgentVoiceRecognizer) -> None:
    with pytest.raises(InvalidArgumentError, match="'resemblyzer', and this recognizer's is 'elsewhere'"):
        external.enroll_embeddings(["c"], matrix(1), encoder="resemblyzer")


def test_switched_off_no_rows_are_enrolled(external: OpusAgentVoiceRecognizer) -> None:
    external.config.fingerprinting_enabled = False
    with pytest.raises(DisabledError):
        external.enroll_embeddings(["c"], matrix(1))


class StopError(Exception):
    """Ends an enrollment half-way."""


def test_an_enrollment_that_was_stopped_resumes_with_the_same_call(
    external: OpusAgentVoiceRecognizer, caplog: pytest.LogCaptureFixture
) -> None:
    names, vectors = [f"c{n // 2}" for n in range(48)], matrix(48)

    def stop(done: int) -> None:
        if done == 20:
            raise StopError

    with pytest.raises(StopError):
        external.enroll_embeddings(names, vectors, [{"n": n} for n in range(48)], progress=stop)
    assert external.storage.count() == 20
    before = {one.id for one in external.storage.get_all()}
    assert gc.isenabled()
    with caplog.at_level(logging.INFO):
        ids = external.enroll_embeddings(names, vectors)
    assert external.storage.count() == len(set(ids.tolist())) == 48
    assert before <= set(ids.tolist())
    assert all(
        np.array_equal(one.embedding, vectors[ids.tolist().index(one.id)])
        for one in external.storage.get_all()
    )
    assert np.array_equal(external.enroll_embeddings(names, vectors), ids)


def test_equal_rows_of_a_caller_take_one_voiceprint(external: OpusAgentVoiceRecognizer) -> None:
    vectors = matrix(2)
    ids = external.enroll_embeddings(["a", "b", "a", "a"], vectors[[0, 1, 0, 0]])
    assert ids[0] == ids[2] == ids[3] != ids[1]
    assert external.storage.count() == 2


def test_an_error_of_the_store_ends_the_enrollment_and_leaves_whole_blocks(tmp_path: Path) -> None:
    path = tmp_path / "voiceprints.db"
    with SQLiteStorage(path) as storage:
        recognizer = OpusAgentVoiceRecognizer(storage, encoder=ExternalEncoder("elsewhere", DIMENSION))

        def lose_the_file(done: int) -> None:
            if done == 20:
                path.rename(tmp_path / "moved.db")

        with pytest.raises(StorageError):
            recognizer.enroll_embeddings(NAMES, matrix(25), progress=lose_the_file)
    assert gc.isenabled()
    (tmp_path / "moved.db").rename(path)
    with SQLiteStorage(path) as storage:
        assert storage.count() == 20
        assert storage.check() == []


def test_a_search_for_cycles_that_the_application_switched_off_stays_off(
    external: OpusAgentVoiceRecognizer,
) -> None:
    gc.disable()
    try:
        external.enroll_embeddings(NAMES, matrix(25))
        assert not gc.isenabled()
    finally:
        gc.enable()
