"""`VectorIndex` takes and gives the same as a numpy brute force, exact or of cells."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from processes import in_child
from vectors import TOLERANCE, D, assert_like, made_trained, vectors

from voiceprint.index import VectorIndex
from voiceprint.index.rows import to_half, to_single


def test_scores_of_a_trained_part_are_exact_also_where_not_every_neighbor_is_found() -> None:
    index, model = made_trained(3_000, recall=0.3)
    assert 0 < index.status().nprobe < index.status().nlist
    queries = vectors(3, 100)
    scores, ids = index.search(queries, 4)
    for query, row_scores, row_ids in zip(queries.astype(np.float64), scores, ids.tolist(), strict=True):
        assert -1 not in row_ids
        assert np.allclose(row_scores, [query @ model[id_] for id_ in row_ids], rtol=0, atol=TOLERANCE)
        assert (np.diff(row_scores) <= 0).all()


def test_searching_and_changing_leave_the_threads_of_the_application_alone() -> None:
    before = faiss.omp_get_max_threads()
    try:
        faiss.omp_set_num_threads(3)
        index, _ = made_trained(threads=1)
        index.search(vectors(1, 1), 2)
        index.search(vectors(1, 1), 2, allowed=[10])
        index.train()
        index.tune()
        index.remove([10])
        with pytest.raises(ValueError, match="k"):
            index.search(vectors(1, 1), 0)
        assert faiss.omp_get_max_threads() == 3
    finally:
        faiss.omp_set_num_threads(before)


def test_thousands_of_equal_vectors_are_taken_out_and_put_back() -> None:
    """They are all in the same list."""
    index, equal = VectorIndex(D, exact_up_to=200), np.tile(vectors(1, 1), (5_000, 1))
    index.add(np.arange(5_000), equal)
    assert index.wait(60)
    assert index.remove(np.arange(100, 5_000)) == 4_900
    model = dict.fromkeys(range(100), equal[0])
    assert_like(index, model)
    index.add(np.arange(50, 150), equal[:100])
    assert_like(index, model | dict.fromkeys(range(150), equal[0]))


def test_memory_that_runs_out_leaves_a_sound_index() -> None:
    index = VectorIndex(4_096, recall=1.0)
    index.add([5], np.ones((1, 4_096)))

    def fill() -> None:
        zeros = np.zeros((512, 4_096), dtype=np.float16)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), most))
        with pytest.raises(MemoryError):
            index.fill((np.arange(start, start + 512), zeros) for start in range(10, 100_000, 512))
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        assert index.check() == []
        assert index.search(np.ones(4_096), 1)[1][0, 0] == 5
        assert index.remove([5]) == 1

    in_child(fill)


@pytest.mark.parametrize(
    "options",
    [{"recall": 0}, {"recall": 1.1}, {"recall": True}, {"recall": "0.9"}, {"threads": 0}, {"exact_up_to": -1},
     {"exact_up_to": 1.0}],
    ids=str,
)  # fmt: skip
def test_an_option_that_makes_no_sense_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        VectorIndex(D, **options)


def test_every_float16_comes_back_as_it_was() -> None:
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)]
    assert np.array_equal(to_single(halves[:, None])[:, 0], halves.astype(np.float32))
    assert np.array_equal(to_half(halves.astype(np.float32)[:, None])[:, 0], halves)


def test_filling_is_adding() -> None:
    index, matrix = VectorIndex(D), vectors(1, 30)
    index.fill((range(start, start + 10), matrix[start : start + 10]) for start in (0, 10, 20))
    assert_like(index, dict(enumerate(matrix)))


@pytest.mark.usefixtures("every_candidate")
def test_check_finds_an_id_that_does_not_lead_to_its_row_and_a_row_that_no_list_holds() -> None:
    index, _ = made_trained()
    assert index.check() == []
    trained = index._parts.trained
    assert trained is not None
    trained.rows.ids[[3, 4]] = trained.rows.ids[[4, 3]]
    trained.ivf = trained.ivf.without(np.array([7]))
    assert [found.split()[0] for found in index.check()] == ["The", "An"]
