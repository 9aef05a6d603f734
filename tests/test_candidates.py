"""The shortlist reads enough voiceprints for a probe, and the answer comes from the records."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from voiceprint import Caller, MemoryStorage, VoiceFingerprintConfig, Voiceprint
from voiceprint.embedder import Probe
from voiceprint.identification.candidates import CANDIDATES_PER_QUERY, candidate_queries, shortlist
from voiceprint.identification.gallery import Gallery
from voiceprint.identification.pipeline import Identifier
from voiceprint.identification.query import Query
from voiceprint.identification.ranking import prints_of, rank
from voiceprint.identification.shared_index import SharedIndex
from voiceprint.index import VectorIndex
from voiceprint.scoring import Calibration, CallerPrints, GalleryScorer, projection_for

SPACE = "resemblyzer"
Vectors = NDArray[np.float32]


class Counting(MemoryStorage):
    """Knows how many callers were read for a match."""

    read = 0

    def callers_of(self, ids):
        found = super().callers_of(ids)
        self.read += len(found)
        return found


@pytest.fixture
def storage() -> Iterator[Counting]:
    with Counting() as made:
        yield made


@pytest.fixture(scope="module")
def scorer() -> GalleryScorer:
    """A scorer by the statistics of some voices of the same kind."""
    cohort = [CallerPrints(one[None], one[None][:0]) for one in embeddings(50, seed=2)]
    return GalleryScorer(projection_for(SPACE, 256), cohort)


def identifier(storage: MemoryStorage) -> Identifier:
    return Identifier(Gallery(storage, SharedIndex(SPACE, 256)), VoiceFingerprintConfig())


def embeddings(count: int, seed: int = 1) -> Vectors:
    """Unit vectors without negative values, as the encoder gives them, that have something in common."""
    drawn = np.random.default_rng(seed).standard_normal((count, 256)) + 0.7
    return unit(np.maximum(drawn, 0.0))


def unit(vectors: Vectors) -> Vectors:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def near(vector: Vectors, seed: int, noise: float = 0.03) -> Vectors:
    drawn = vector + noise * np.random.default_rng(seed).standard_normal(256)
    return unit(np.maximum(drawn, 0.0))


def crowd(storage: MemoryStorage, callers: int) -> Vectors:
    """Callers with one, two or three prints each; gives the voices."""
    voices = embeddings(callers)
    storage.save_many(
        Voiceprint(f"c{n:04}", near(voice, 10 * n + m))
        for n, voice in enumerate(voices)
        for m in range(1 + n % 3)
    )
    return voices


def test_matches_are_those_of_ranking_every_caller(storage: Counting) -> None:
    voices, shared = crowd(storage, 600), SharedIndex(SPACE, 256)
    asked = Identifier(Gallery(storage, shared), VoiceFingerprintConfig())
    everybody, scorer = storage.get_all(), Gallery(storage, shared).scorer()
    for n in range(0, 600, 29):
        probe = Probe(near(voices[n], 7_000 + n), near(voices[n], 8_000 + n))
        wanted = rank(probe, everybody, scorer)[:2]
        found = asked.identify(probe, Query(2))
        assert [match.caller_id for match in found] == [one.voiceprint.caller_id for one in wanted]
        assert [match.llr for match in found] == pytest.approx([one.llr for one in wanted])
        assert [match.similarity for match in found] == pytest.approx([one.similarity for one in wanted])
        assert found[0].caller_id == f"c{n:04}"


def test_few_records_are_read_for_a_match_and_as_many_callers_as_are_asked_for(storage: Counting) -> None:
    voices, asked = crowd(storage, 600), identifier(storage)
    asked.identify(Probe(voices[5]), Query(5))  # the first reads the cohort
    storage.read = 0
    asked.identify(Probe(voices[5]), Query(5))
    assert 6 <= storage.read <= 30
    for k in (50, 599, 600, 700):
        found = asked.identify(Probe(voices[5]), Query(k))
        assert len({match.caller_id for match in found}) == len(found) == min(k, 600)


def test_a_score_counts_what_the_index_does_not_hold(storage: Counting) -> None:
    voices, shared = crowd(storage, 300), SharedIndex(SPACE, 256)
    heard = near(voices[40], 9_000, 0.02)
    plain = unit(0.6 * voices[40] + 0.4 * voices[41])
    storage.save(Voiceprint("by telephone", plain, augmented=near(heard, 9_001, 0.005)))
    best = Identifier(Gallery(storage, shared), VoiceFingerprintConfig()).identify(Probe(heard), Query(1))[0]
    assert best.caller_id == "by telephone"
    assert best.similarity == pytest.approx(float(plain @ heard))
    assert best.llr == pytest.approx(
        rank(Probe(heard), storage.get("by telephone").voiceprints, Gallery(storage, shared).scorer())[0].llr
    )


def test_a_caller_who_was_replaced_since_the_search_is_scored_by_the_record() -> None:
    voices = embeddings(40)

    class Quicker(MemoryStorage):
        """Another process is, between the search of the index and the reading of the records."""

        def callers_of(self, ids: object) -> list[Caller]:
            self.delete("gone")
            print_ = self.get("changed").voiceprints[0]
            self.save(Voiceprint("changed", voices[1], id=print_.id))
            return super().callers_of(ids)

    with Quicker() as storage:
        storage.save_many(Voiceprint(f"c{n}", voice) for n, voice in enumerate(voices) if n)
        storage.save_many([Voiceprint(name, near(voices[0], 1, 0.001)) for name in ("changed", "gone")])
        found = identifier(storage).identify(Probe(voices[0]), Query(60))
        similarities = {match.caller_id: match.similarity for match in found}
        assert "gone" not in similarities
        assert similarities["changed"] == pytest.approx(float(voices[0] @ voices[1]))


def test_a_caller_is_found_by_one_of_the_views_alone(scorer: GalleryScorer) -> None:
    index, vectors = VectorIndex(256), embeddings(3_000)
    index.add(np.arange(3_000), vectors)
    probe = Probe(vectors[3], vectors[8])  # two voices: views of a cleaned call can differ
    ids = shortlist(index, candidate_queries(probe, scorer, 2, 3), CANDIDATES_PER_QUERY).ids
    assert {3, 8} <= set(ids)
    assert set(ids) < set(range(3_000))


def test_nothing_is_proposed_of_an_empty_index() -> None:
    assert shortlist(VectorIndex(256), candidate_queries(Probe(embeddings(1)[0]), None, 5, 1), 5) == (
        [],
        True,
    )


def test_an_index_that_is_written_to_meanwhile_always_proposes(scorer: GalleryScorer) -> None:
    index, vectors, done = VectorIndex(256), embeddings(400), threading.Event()
    index.add(np.arange(200), vectors[:200])

    def write() -> None:
        while not done.is_set():
            index.add(np.arange(200, 400), vectors[200:])
            index.remove(np.arange(200, 400))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for n in range(100):
            assert (
                n
                in shortlist(
                    index, candidate_queries(Probe(vectors[n]), scorer, 6, 3), CANDIDATES_PER_QUERY
                ).ids
            )
    finally:
        done.set()
        writer.join()


def test_nothing_of_a_removed_caller_is_kept_in_the_scorer(storage: Counting) -> None:
    crowd(storage, 400)
    shared = SharedIndex(SPACE, 256)
    Gallery(storage, shared).refresh()
    first = Gallery(storage, shared).scorer()
    storage.save(Voiceprint("one more", embeddings(1, seed=9)[0]))
    Gallery(storage, shared).refresh()
    assert Gallery(storage, shared).scorer() is first  # one of many changes little
    sampled = next(iter(shared.scorers._cohort))
    (caller,) = storage.callers_of([sampled])
    storage.delete(caller.caller_id)
    Gallery(storage, shared).refresh()
    assert Gallery(storage, shared).scorer() is not first
    assert sampled not in shared.scorers._cohort


def test_nothing_is_kept_of_a_caller_who_is_removed_while_the_scorer_is_made() -> None:
    class Meanwhile(MemoryStorage):
        def callers_of(self, ids):
            found = super().callers_of(ids)
            if self.leaves is not None:
                leaves, self.leaves = self.leaves, None
                self.delete(leaves)
                Gallery(self, shared).refresh()  # as another thread would
            return found

    with Meanwhile() as storage:
        storage.leaves = None
        crowd(storage, 30)
        shared = SharedIndex(SPACE, 256)
        Gallery(storage, shared).refresh()
        caller = next(iter(storage.iter_callers()))
        storage.leaves = caller.caller_id
        Gallery(storage, shared).scorer()
        assert storage.get(caller.caller_id) is None
        scorer = Gallery(storage, shared).scorer()
        assert scorer._size == 29
        assert Gallery(storage, shared).scorer() is scorer


def test_calibrations_share_one_scorer(storage: Counting, tmp_path: Path) -> None:
    crowd(storage, 30)
    shared = SharedIndex(SPACE, 256)
    path = tmp_path / "calibration.json"
    Calibration(scale=2.0, offset=0.5).save(path)
    plain = Gallery(storage, shared).scorer()
    read = storage.read
    other = Gallery(storage, shared).scorer(str(path))
    assert Gallery(storage, shared).scorer() is plain
    assert storage.read == read, "nothing is measured anew"
    probe, callers = embeddings(1, seed=9)[0], [prints_of(one.voiceprints) for one in storage.iter_callers()]
    deviations = plain.llrs(probe, callers) / plain.calibration.scale + plain.calibration.offset
    assert np.allclose(other.llrs(probe, callers), 2.0 * (deviations - 0.5))
    assert other.threshold(0.01, 30) != plain.threshold(0.01, 30)


@pytest.mark.parametrize("callers", [1, 2, 8])
def test_callers_may_have_more_prints_than_the_scorer_looks_at(storage: Counting, callers: int) -> None:
    each = 320 // callers
    shared = embeddings(callers, seed=3)
    storage.save_many(
        [
            Voiceprint(f"caller {number}", unit(voice + 0.02 * noise))
            for number, voice in enumerate(shared)
            for noise in embeddings(each, seed=4 + number)
        ],
        max_voiceprints=each,
    )
    found = identifier(storage).identify(Probe(unit(shared[0])), Query(3))
    assert found[0].caller_id == "caller 0"
    assert len(found) == min(callers, 3)
    assert found[0].fpir is not None


def test_callers_of_another_space_are_no_rivals(storage: Counting) -> None:
    crowd(storage, 10)
    probe = Probe(embeddings(1, seed=9)[0])
    alone = identifier(storage).identify(probe, Query(3))
    storage.save_many(
        [Voiceprint(f"other {n}", one, encoder="other") for n, one in enumerate(embeddings(500, seed=8))],
        max_voiceprints=3,
    )
    beside = identifier(storage).identify(probe, Query(3))
    assert [(one.caller_id, one.llr) for one in beside] == [(one.caller_id, one.llr) for one in alone]
    shared = SharedIndex(SPACE, 256)
    assert Gallery(storage, shared).count_callers() <= len(Gallery(storage, shared).refresh()) < 40
