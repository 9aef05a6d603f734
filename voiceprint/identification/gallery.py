"""The gallery: the enrolled voiceprints of one store and one embedding space, ready to be searched.

It holds a `VectorIndex` and keeps it in step with the store: before each search it compares the
store's position with its own, and when behind it applies the store's changes, or rebuilds.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from voiceprint._keyed_cache import KeyedCache
from voiceprint.errors import InvalidArgumentError, StorageCorruptError, VoiceprintError
from voiceprint.identification.candidates import CandidateQuery, by_cosine, propose
from voiceprint.identification.ranking import Probe, Scored, prints_of, rank
from voiceprint.identification.snapshots import (
    NO_SNAPSHOT,
    IndexSettings,
    SnapshotKeeper,
    Stamp,
    files_of,
    snapshot_path,
)
from voiceprint.models import Finding, Voiceprint
from voiceprint.storage.base import Changes, Position, Progress, Storage

if TYPE_CHECKING:
    from voiceprint.index import VectorIndex
    from voiceprint.scoring import GalleryScorer, ImpostorStatistics

logger = logging.getLogger(__name__)

# Galleries that stay in memory when no recognizer uses them, so that one built per call finds its
# index ready. Each holds about 1 KB a voiceprint.
KEPT_GALLERIES = 4

STALE_SHARE = 20
"""One part in so many of the cohort's gallery may change before the scorer is made anew."""

_RIVALS = 20  # prints that the index finds for a caller of the cohort

_ROUNDING = 5e-4  # of a value of a unit vector: the index holds float16

_TOLD_EVERY = 100_000  # voiceprints, when an index is built: a line in the log

# The index, the identity of the store that it is of, and the position that it stands at.
State = tuple["VectorIndex", str, Position]


class Gallery:
    """Searches the voiceprints of a store. Shared by all recognizers over that store, see `shared`.

    encoder: name of the embedding space; dimension: length of its embeddings; settings: of the index, and
    where its snapshot is kept. The store is passed to
    each call rather than kept, because the handle of one recognizer may be closed before another's.
    """

    _shared: ClassVar[KeyedCache[tuple[str, str, IndexSettings], Gallery]] = KeyedCache(kept=KEPT_GALLERIES)

    @classmethod
    def shared(
        cls, storage: Storage, encoder: str, dimension: int, settings: IndexSettings = NO_SNAPSHOT
    ) -> Gallery:
        """The process's one gallery over this store and embedding space."""
        return cls._shared.get(
            (storage.location, encoder, settings), lambda: cls(encoder, dimension, settings)
        )

    @classmethod
    def forget_all(cls) -> None:
        """Drop every shared gallery; the next recognizer builds its index anew."""
        cls._shared.forget_all()

    def __init__(self, encoder: str, dimension: int, settings: IndexSettings = NO_SNAPSHOT) -> None:
        self.encoder = encoder
        self.dimension = dimension
        self.settings = settings
        self._snapshots = SnapshotKeeper(settings, dimension)
        # One attribute, so that its parts are always read together. Without the identity, another store
        # that was put in the same place and has come to the same revision would be taken for the old one.
        self._state: State | None = None
        self._sync_lock = threading.Lock()
        self._told_of_others = False
        self.told_of_strangers = False
        self._counted = (0, 0)  # voiceprints, and callers, when these were last counted
        self._changed = 0  # voiceprints that were added or removed, ever
        self._scorer: tuple[GalleryScorer, int, int] | None = None
        self._cohort: frozenset[int] = frozenset()  # ids of its voiceprints
        self._meanwhile: set[int] | None = None  # ids that changed since a scorer was begun
        self._builds = 0
        self._cosines: ImpostorStatistics | None = None
        self._scorer_lock = threading.Lock()

    def best(self, storage: Storage, probe: NDArray[np.float32], callers: int) -> list[Scored]:
        """The best voiceprint of each of the `callers` most similar callers, the best first.

        probe: float32[dimension], of length 1. Fewer come back only where there are fewer callers.
        """
        self.synchronized(storage)
        view = by_cosine(probe, callers * storage.max_voiceprints_per_caller)
        return rank(Probe(probe), self.proposed(storage, [view], callers))[:callers]

    def proposed(
        self, storage: Storage, views: Sequence[CandidateQuery], callers: int, prints: int = 0
    ) -> list[Voiceprint]:
        """All voiceprints of those who may be among the `callers` best in one of the views, as stored.

        The index is searched as it stands: call `synchronized` before.

        prints: so many at least are found by the query of each view, and weighed by the scores of all. Read
        from the store are the callers of the best. Fewer callers come back only where there are fewer.
        """
        index = self._at_hand(storage)
        if not len(index):
            self._tell_of_other_spaces(storage)
        # A caller may have several prints among the nearest: ask for more until there are enough callers.
        found, wider = max(prints, callers * storage.max_voiceprints_per_caller), 1
        while True:
            with _told(storage):
                proposal = propose(index, views, found, wider)
            # One that was saved anew in another space since the search is not to be compared.
            known = [
                voiceprint
                for caller in storage.callers_of(proposal.ids)
                for voiceprint in caller.voiceprints
                if voiceprint.encoder == self.encoder
            ]
            if proposal.is_all or len({one.caller_id for one in known}) >= callers:
                return known
            found, wider = 2 * found, 2 * wider

    def _tell_of_other_spaces(self, storage: Storage) -> None:
        told = None if self._told_of_others else other_spaces(storage, self.encoder)
        if told is not None:
            self._told_of_others = True
            logger.warning("%s: %s", storage, told)

    def callers(self, storage: Storage) -> int:
        """How many callers there are, to one in fifty: counting a million takes a while.

        Stores count those of all spaces: where there are others, each voiceprint counts as a caller at most.
        """
        prints = len(self._at_hand(storage))
        counted_at, counted = self._counted
        if abs(prints - counted_at) * 50 > counted_at:
            counted_at, counted = self._counted = prints, storage.count_callers()
        return min(counted, prints)

    def scorer(self, storage: Storage, calibration_path: str | None = None) -> GalleryScorer:
        """The scorer of the gallery as it stands, of a sample of it where it is large.

        It is made anew when one voiceprint in `STALE_SHARE` has changed; of a gallery of a million this takes
        a third of a second.
        """
        from voiceprint.scoring import calibration_for

        calibration = calibration_for(self.encoder, calibration_path)
        index = self._at_hand(storage)
        with self._scorer_lock:
            if self._scorer is not None:
                scorer, at, size = self._scorer
                if (self._changed - at) * STALE_SHARE <= size:
                    return scorer.calibrated(calibration)
            at, size, builds = self._changed, len(index), self._builds
            meanwhile: set[int] = set()
            self._meanwhile = meanwhile
            try:
                scorer, self._cohort = self._sampled(storage, index)
                self._scorer = scorer, at, size
                # `_apply` notes what changed before it looks at the cohort: one of the two sees the other.
                if builds != self._builds or not self._cohort.isdisjoint(meanwhile):
                    self._scorer = None
            finally:
                self._meanwhile = None
            return scorer.calibrated(calibration)

    def _sampled(self, storage: Storage, index: VectorIndex) -> tuple[GalleryScorer, frozenset[int]]:
        """A scorer without a calibration, and the ids of the voiceprints of its cohort."""
        from voiceprint.scoring import COHORT, GalleryScorer, projection_for

        ids = np.sort(index.ids())
        chosen = np.random.default_rng(len(ids)).permutation(ids)[:COHORT]
        cohort = []
        for caller in storage.callers_of(np.sort(chosen).tolist()):
            prints = [one for one in caller.voiceprints if one.encoder == self.encoder]
            if prints:
                cohort.append(prints)
        of_callers = [prints_of(prints) for prints in cohort]
        self._cosines = self._best_cosines(index, cohort, self.callers(storage) - 1)
        scorer = GalleryScorer(projection_for(self.encoder, self.dimension), of_callers)
        if len(ids) > COHORT and len(cohort) > 1 and scorer.statistics is not None:
            best = [self._rival(index, scorer, prints) for prints in cohort]
            if None not in best:
                scorer.observe_rivals(np.array(best), self.callers(storage) - 1)
        return scorer, frozenset(one.id for prints in cohort for one in prints if one.id is not None)

    @staticmethod
    def _best_cosines(
        index: VectorIndex, cohort: list[list[Voiceprint]], others: int
    ) -> ImpostorStatistics | None:
        """The statistics of strangers' best cosines, by each caller's first print; None for few callers."""
        from voiceprint.scoring import MIN_CALLERS, ImpostorStatistics

        if len(cohort) < MIN_CALLERS:
            return None
        probes = np.stack([prints[0].embedding for prints in cohort])
        found, ids = index.search(probes, 1 + max(map(len, cohort)))
        own = [[one.id for one in prints if one.id is not None] for prints in cohort]
        best = [
            cosines[~np.isin(row, of) & (row >= 0)].max(initial=-1.0)
            for cosines, row, of in zip(found, ids, own, strict=True)
        ]
        return ImpostorStatistics(
            callers=len(best),
            others=max(others, 1),
            pair_mean=0.0,
            pair_std=1.0,
            best_mean=float(np.mean(best)),
            best_std=max(float(np.std(best, ddof=1)), 1e-9),
        )

    def strangers_over(self, storage: Storage, threshold: float) -> float | None:
        """The expected share of strangers whose cosine with some caller reaches a threshold, 0 to 1.

        By how alike the gallery's callers are to each other; None where there are too few to say.
        """
        self.scorer(storage)
        statistics = self._cosines
        return None if statistics is None else statistics.fpir(threshold, self.callers(storage))

    @staticmethod
    def _rival(index: VectorIndex, scorer: GalleryScorer, prints: list[Voiceprint]) -> float | None:
        """The greatest rough score of a caller's first print with the print of another caller.

        None where the index holds no other any more.
        """
        probe, own = prints[0].embedding, [one.id for one in prints]
        found = [
            index.search(query[None], max(1, min(len(own) + _RIVALS, len(index))))[1][0]
            for query in (probe, scorer.query(probe))
        ]
        ids = np.setdiff1d(np.concatenate(found), [-1, *(one for one in own if one is not None)])
        vectors = index.vectors_of(ids)[1]
        return float(scorer.rough_scores(probe, vectors).max()) if len(vectors) else None

    def _at_hand(self, storage: Storage) -> VectorIndex:
        """The index as it stands, without a look at the store, for what need not be of this moment."""
        state = self._state
        return self.synchronized(storage) if state is None else state[0]

    def synchronized(self, storage: Storage, progress: Progress | None = None) -> VectorIndex:
        """The index, holding every change that was committed before this call.

        progress: told how many voiceprints are in, when the index has to be built from the store.
        """
        state = self._state
        if state is not None and (storage.identity(), storage.position()) == state[1:]:
            return state[0]
        with self._sync_lock:
            more = True
            while more:
                identity = storage.identity()
                if self._state is not None and self._state[1] != identity:
                    self._state = None
                index, _, position = self._state or self._opened(storage, identity, progress)
                changes = storage.changes(position, encoder=self.encoder)
                if changes is None:
                    logger.warning(
                        "%s: the change feed does not reach back, or was rewound; building the index anew.",
                        storage,
                    )
                    self._state = self._built(storage, identity, progress)
                    continue
                # Kept before the changes go in, which may fail half-way; see `_apply`.
                self._state = index, identity, position
                self._apply(changes, index, storage)
                self._state = index, identity, changes.position
                more = changes.more
            self._snapshots.write_if_due(storage, *self._stamped())
            return index

    def _opened(self, storage: Storage, identity: str, progress: Progress | None) -> State:
        """The index of the snapshot, or one that is built from the store."""
        loaded = self._snapshots.load(storage, self.encoder)
        if loaded is None:
            return self._built(storage, identity, progress)
        index, position = loaded
        return index, identity, position

    def _built(self, storage: Storage, identity: str, progress: Progress | None) -> State:
        from voiceprint.index import VectorIndex  # faiss is loaded at the first search, not at import

        position = storage.position()
        index = VectorIndex(self.dimension, recall=self.settings.recall, threads=self.settings.threads)

        def blocks() -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
            logged = 0
            for ids, embeddings in storage.scan(encoder=self.encoder):
                self._check(embeddings, storage)
                yield ids, embeddings
                if progress is not None:
                    progress(len(index))
                if len(index) >= logged + _TOLD_EVERY:
                    logged = len(index)
                    logger.info("%s: %d voiceprints are in the index.", storage, logged)

        with _told(storage):
            index.fill(blocks())
        self._snapshots.built(len(index))
        self._builds += 1  # before what a scorer that is being made would replace
        self._scorer = None
        return index, identity, position

    def _stamped(self) -> tuple[VectorIndex, Stamp]:
        """The index, and what a snapshot of it is stamped with."""
        if self._state is None:
            raise VoiceprintError("The index failed half-way and is built anew: try again.")
        index, identity, position = self._state
        return index, Stamp(identity, self.encoder, position)

    def close(self, storage: Storage) -> None:
        """Write the snapshot, if enough has changed. The gallery can go on being used."""
        state = self._state  # another thread may be about to put it away
        if state is not None:
            index, identity, position = state
            self._snapshots.close(storage, index, Stamp(identity, self.encoder, position))

    def rebuild(self, storage: Storage, progress: Progress | None = None) -> VectorIndex:
        """Build the index anew from the store, train it, and write the snapshot."""
        with self._sync_lock:
            self._state = self._built(storage, storage.identity(), progress)
        index = self.synchronized(storage)
        index.wait()
        self.write_snapshot(storage)
        return index

    def tune(self, storage: Storage, recall: float | None) -> VectorIndex:
        """Measure anew how much of the index a search has to look at, and write the snapshot."""
        index = self.synchronized(storage)
        try:
            index.tune(recall)
        except ValueError as error:
            raise InvalidArgumentError(str(error)) from None
        index.wait()
        self.write_snapshot(storage)
        return index

    def write_snapshot(self, storage: Storage) -> None:
        """Write the snapshot now, if one is kept.

        Raises `ConfigurationError` where something else lies in its place; another failure is a warning.
        """
        path = self.snapshot_path(storage)
        if path is not None:
            self._snapshots.write(path, *self._stamped(), files_of(storage), asked=True)

    def snapshot_path(self, storage: Storage) -> Path | None:
        """Where the snapshot lies; None where none is kept."""
        return snapshot_path(storage, self.settings.path, self.encoder)

    def _apply(self, changes: Changes, index: VectorIndex, storage: Storage) -> None:
        if len(changes.ids):
            self._check(changes.embeddings, storage)
        state, self._state = self._state, None  # half done, it is of no use: it would be built anew
        if len(changes.removed) or any(id_ in index for id_ in changes.ids.tolist()):
            self._snapshots.erase(storage, index)
        with _told(storage):
            if len(changes.removed):
                index.remove(changes.removed)
            if len(changes.ids):
                index.add(changes.ids, changes.embeddings)
        self._snapshots.changed(len(changes.removed) + len(changes.ids))
        self._changed += len(changes.removed) + len(changes.ids)
        changed, meanwhile = [*changes.removed.tolist(), *changes.ids.tolist()], self._meanwhile
        if meanwhile is not None:
            meanwhile.update(changed)
        if not self._cohort.isdisjoint(changed):
            self._scorer = None  # nothing of what was removed or replaced is kept
        self._state = state

    def _check(self, embeddings: NDArray[np.float32], storage: Storage) -> None:
        if embeddings.shape[1] != self.dimension:
            raise StorageCorruptError(
                f"{storage.location}: embeddings of the space {self.encoder!r} have {embeddings.shape[1]} "
                f"values, and the encoder's have {self.dimension}. Use the encoder that enrolled the callers."
            )

    def check(self, storage: Storage) -> list[Finding]:
        """Compare the index with the store, both ways."""
        index = self.synchronized(storage)
        found: dict[int, tuple[str, str]] = {}
        unseen = set(index.ids().tolist())
        for ids, embeddings in storage.scan(encoder=self.encoder):
            there, indexed = index.vectors_of(ids)
            unseen.difference_update(ids.tolist())
            for id_ in ids[~there].tolist():
                found[id_] = "not_indexed", "It is in the store and not in the index: it cannot be found."
            other = np.abs(indexed - embeddings[there]).max(axis=1, initial=0) > _ROUNDING
            for id_ in ids[there][other].tolist():
                found[id_] = "indexed_otherwise", "The index holds another embedding than the store."
        for id_ in unseen:
            found[id_] = "not_stored", "It is in the index and not in the store."
        return [
            Finding(code=code, place=f"voiceprint {id_}", message=message)
            for id_, (code, message) in sorted(found.items())
        ]


def other_spaces(storage: Storage, encoder: str) -> str | None:
    """A sentence on the voiceprints of other spaces than this encoder's; None where there are none."""
    others = {space: count for space, count in storage.spaces().items() if space != encoder}
    if not others:
        return None
    named = ", ".join(f"{count:,} of {space!r}" for space, count in sorted(others.items())[:5])
    return (
        f"{sum(others.values()):,} voiceprints are of other encoders than {encoder!r} and are not compared "
        f"({named}): set VOICE_ENCODER to the one that enrolled them, or enroll the callers anew."
    )


@contextmanager
def _told(storage: Storage) -> Iterator[None]:
    """What faiss raises, for want of memory above all, becomes one of our errors."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        raise VoiceprintError(
            f"The index over {storage.location} failed ({type(error).__name__}). The callers are safe in the "
            "store, and the index is built anew from them. Is there memory left, about 1 KB a voiceprint?"
        ) from error


# After a fork, a lock that another thread of the parent held would never be released in the child.
os.register_at_fork(after_in_child=Gallery.forget_all)
