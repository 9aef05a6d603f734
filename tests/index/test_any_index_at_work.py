"""The contract of an index at work, on every engine: its recall, and searches during changes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from engines import Engine, engines
from vectors import vectors

from tools.gallery_model import GalleryModel

ENGINES = dict(engines())
PRINTS = 3_000


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    yield ENGINES[request.param]
    ENGINES[request.param].close()


def test_the_nearest_of_held_out_recordings_are_found_also_behind_a_filter(engine: Engine) -> None:
    gallery = GalleryModel.load().gallery(PRINTS)
    matrix, probes = gallery.matrix(), gallery.probes(200)[1]
    index, ids = engine.empty(256), np.arange(PRINTS)
    index.fill([(ids[::2], matrix[::2]), (ids[1::2], matrix[1::2])])
    engine.upkeep(index)
    exact = probes @ matrix.T
    for filters, passing in (
        ({}, ids),
        ({"allowed": ids[::100]}, ids[::100]),
        ({"allowed": ids[::5]}, ids[::5]),
        ({"excluded": ids[::2]}, ids[1::2]),
    ):
        found = index.search(probes, 5, **filters)[1]
        wanted = passing[np.argsort(-exact[:, passing], axis=1)[:, :5]]
        assert np.isin(found, passing).all()
        assert (found[:, 0] == wanted[:, 0]).mean() >= 0.98
        assert np.mean([len({*a} & {*b}) / 5 for a, b in zip(found, wanted, strict=True)]) >= 0.95


def test_new_recordings_are_found_where_all_voiceprints_of_a_caller_are_of_one_recording(
    engine: Engine,
) -> None:
    gallery = GalleryModel.load().gallery(PRINTS // 3)
    probes = gallery.probes(500)[1]
    matrix = np.repeat(gallery.matrix(), 3, axis=0) + 0.01 * vectors(1, PRINTS, 256)
    index = engine.empty(256)
    index.fill([(np.arange(PRINTS), matrix)])
    engine.upkeep(index)
    found = index.search(probes, 1)[0][:, 0]
    assert (found >= (probes @ matrix.T).max(axis=1) - 1e-3).mean() >= 0.98


def test_the_nearest_of_later_vectors_are_found_where_others_were_removed(engine: Engine) -> None:
    gallery = GalleryModel.load().gallery(PRINTS)
    matrix, probes = gallery.matrix(), gallery.probes(200)[1]
    index, ids = engine.empty(256), np.arange(PRINTS)
    first, later = ids[:-600], ids[-600:]
    former = PRINTS + later
    index.fill([(first, matrix[first]), (former, GalleryModel.load().gallery(len(former), 2).matrix())])
    engine.upkeep(index)
    index.remove(former)
    index.add(later, matrix[later])
    engine.settle(index)
    found = index.search(probes, 1)[1][:, 0]
    assert (found == (probes @ matrix.T).argmax(axis=1)).mean() >= 0.98


def test_searches_go_on_during_changes_and_upkeep_and_none_is_lost(engine: Engine) -> None:
    index, done = engine.empty(32), threading.Event()
    matrix = vectors(0, 1_000, 32)
    ids = np.arange(len(matrix))

    def write(part: int) -> None:
        mine, own = ids[part::2], engine.again(index)
        for start in range(0, len(mine), 50):
            some = mine[start : start + 50]
            own.add(some, matrix[some])
            own.remove(some[::5])
            own.add(some[::5], matrix[some[::5]])

    def search() -> int:
        searches, own = 0, engine.again(index)
        while not done.is_set() or not searches:
            query = matrix[searches % 50]
            scores, found = own.search(query, 3)
            assert np.allclose(*_finite(scores[0], found[0], matrix @ query), rtol=0, atol=1e-5)
            assert -1 not in own.ids()
            searches += 1
        return searches

    with ThreadPoolExecutor(4) as pool:
        searching = [pool.submit(search) for _ in range(2)]
        try:
            for writing in [pool.submit(write, part) for part in range(2)]:
                while not writing.done():
                    engine.upkeep(index)
                writing.result()
            engine.upkeep(index)
        finally:
            done.set()
        assert all(future.result(60) for future in searching)
    assert sorted(index.ids().tolist()) == ids.tolist()
    assert np.array_equal(index.vectors_of(ids)[1], matrix)
    assert index.check() == []


def _finite(scores: Any, ids: Any, exact: Any) -> tuple[Any, Any]:
    """The scores of what was found, and the exact ones of the same vectors."""
    there = ids >= 0
    return scores[there], exact[ids[there]]
