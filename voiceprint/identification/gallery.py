"""The gallery: the enrolled voiceprints of one store and one embedding space, ready to be searched.

Before each search a gallery compares the position of its index with that of the store, and when the index is
behind, applies the store's changes or builds the index anew.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from voiceprint._stages import timed
from voiceprint.errors import (
    InvalidArgumentError,
    StorageCorruptError,
    StorageError,
    VoiceprintError,
)
from voiceprint.identification.candidates import CandidateQuery, Shortlist, shortlist
from voiceprint.identification.groups import EVERYONE, GroupMap, Scope
from voiceprint.identification.shared_index import IndexState, SharedIndex
from voiceprint.identification.snapshots import Stamp
from voiceprint.identification.spaces import other_spaces
from voiceprint.models import Caller, Finding, Voiceprint
from voiceprint.storage.base import Changes, Progress, Storage

if TYPE_CHECKING:
    from voiceprint.identification.engine import GalleryIndex
    from voiceprint.identification.left_out import LeftOutScores
    from voiceprint.index import IdSet
    from voiceprint.scoring import GalleryScorer, ImpostorStatistics

logger = logging.getLogger(__name__)

# Voiceprints to read to estimate the callers of a space: a standard error of at most 1.8 % with up to three
# voiceprints a caller; of twice as many 1.3 %, in twice the time.
_SAMPLED: Final = 1_000
_WARNED_GROUPS: Final = (
    100  # names that are remembered, so that an application's names do not fill the memory
)
_LOGGED_EVERY: Final = 100_000  # voiceprints, while an index is built
_BYTES_A_VALUE: Final = 2.7  # of memory that the index takes for a value of an embedding
_STORED_PRECISION: Final = 5e-4  # of a value of a unit vector: the index holds float16


class Gallery:
    """The voiceprints that one handle of a store reads, searched by the index that the process shares."""

    def __init__(self, storage: Storage, shared: SharedIndex) -> None:
        self.storage = storage
        self.encoder = shared.encoder
        self._shared = shared

    # The index in step with the store

    @timed("index")
    def refresh(self, progress: Progress | None = None) -> GalleryIndex:
        """The index, with every change that was committed before this call.

        progress: called with the number of indexed voiceprints while the index is built.
        """
        storage, shared = self.storage, self._shared
        state = shared.state
        if (
            state is not None
            and (storage.identity(), storage.position()) == (state.store, state.position)
            and not shared.engine.is_lost(storage, state.vectors)
        ):
            shared.engine.settle(storage, state.vectors, self._stamp(state))
            return state.vectors
        with shared.lock:
            more = True
            while more:
                identity = storage.identity()
                known = shared.state
                if known is not None and (
                    known.store != identity or shared.engine.is_lost(storage, known.vectors)
                ):
                    shared.state = None
                state = shared.state or self._load(identity) or self._build(identity, progress)
                changes = storage.changes(state.position, encoder=self.encoder)
                if changes is None:
                    logger.warning(
                        "%s: the change feed does not reach back, or was rewound; making the index anew.",
                        storage,
                    )
                    # One that was in use is loaded again first, as another process may have made it anew.
                    is_loaded = state is not shared.state
                    shared.state = self._build(identity, progress) if is_loaded else None
                    continue
                # Before the changes go in, which may fail half-way; see `_apply`.
                shared.state = state
                self._apply(changes, state)
                shared.state = state._replace(position=changes.position)
                shared.engine.applied(changes.position)
                more = changes.more
            index, stamp = self._stamped()
            shared.engine.settle(storage, index, stamp)
            return index

    def _current_state(self) -> IndexState:
        """The index and the groups, without a comparison with the store."""
        state = self._shared.state
        if state is None:
            self.refresh()
            state = self._known_state()
        return state

    def _known_state(self) -> IndexState:
        state = self._shared.state  # another thread may be about to change it
        if state is None:
            raise VoiceprintError("The index failed half-way and is built anew: try again.")
        return state

    def _current_index(self) -> GalleryIndex:
        """The index, without a comparison with the store."""
        return self._current_state().vectors

    def _load(self, identity: str) -> IndexState | None:
        loaded = self._shared.engine.load(self.storage)
        if loaded is None:
            return None
        index, position = loaded
        self._shared.scorers.reset()  # of an index that was in use: it may hold voiceprints removed since
        # Groups of a later moment than the index: the changes since then repeat some of theirs.
        return IndexState(index, identity, position, self._groups())

    def _groups(self) -> GroupMap:
        return GroupMap(self.storage.group_ids(encoder=self.encoder))

    def _build(self, identity: str, progress: Progress | None, *, anew: bool = False) -> IndexState:
        def blocks() -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
            read = logged = 0
            for ids, embeddings in self.storage.scan(encoder=self.encoder):
                self._check_dimension(embeddings)
                yield ids, embeddings
                read += len(ids)
                if progress is not None:
                    progress(read)
                if read >= logged + _LOGGED_EVERY:
                    logged = read
                    logger.info("%s: %d voiceprints are in the index.", self.storage, read)

        with self._translate_index_errors():
            index, position = self._shared.engine.build(self.storage, blocks, anew=anew)
        self._shared.scorers.reset()
        return IndexState(index, identity, position, self._groups())

    def _apply(self, changes: Changes, state: IndexState) -> None:
        shared = self._shared
        if len(changes.ids):
            self._check_dimension(changes.embeddings)
        # After an error, half of the changes may be in the index: the next refresh builds another.
        shared.state = None
        with self._translate_index_errors():
            shared.engine.apply(self.storage, state.vectors, changes)
        state.groups.apply(changes)
        shared.scorers.note_changes([*changes.removed.tolist(), *changes.ids.tolist()])
        shared.state = state

    def _check_dimension(self, embeddings: NDArray[np.float32]) -> None:
        if embeddings.shape[1] != self._shared.dimension:
            raise StorageCorruptError(
                f"{self.storage.location}: embeddings of the space {self.encoder!r} have "
                f"{embeddings.shape[1]} values, and the encoder's have {self._shared.dimension}. Use the "
                "encoder that enrolled the callers."
            )

    @contextmanager
    def _translate_index_errors(self) -> Iterator[None]:
        """Raise `VoiceprintError` for errors of faiss, which mostly mean too little memory."""
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            raise VoiceprintError(
                f"The index over {self.storage.location} failed ({type(error).__name__}). The callers are "
                "safe in the store, and the index is built anew from them. Is there memory left, about "
                f"{_BYTES_A_VALUE * self._shared.dimension / 1000:.1f} KB a voiceprint?"
            ) from error

    # Reading

    @timed("search")
    def shortlist(
        self, queries: Sequence[CandidateQuery], found: int, wider: int, scope: Scope = EVERYONE
    ) -> Shortlist:
        """Voiceprint ids of a scope by the current index; see `candidates.shortlist`."""
        state = self._current_state()
        if not len(state.vectors):
            self._warn_of_other_spaces()
        with self._translate_index_errors():
            return shortlist(state.vectors, queries, found, wider, state.groups.ids(scope))

    @timed("read")
    def read(self, ids: list[int]) -> list[Voiceprint]:
        """All stored voiceprints of the callers of these."""
        return [one for caller in self.storage.callers_of(ids) for one in self.prints_of(caller)]

    def prints_of(self, caller: Caller) -> list[Voiceprint]:
        """The caller's voiceprints in this space: embeddings of different encoders are never compared."""
        return [one for one in caller.voiceprints if one.encoder == self.encoder]

    def count_voiceprints(self, scope: Scope = EVERYONE) -> int:
        """The number of voiceprints in this space, or the most that a scope can have."""
        state = self._current_state()
        return state.groups.ids(scope).most(len(state.vectors))

    def count_callers(self, scope: Scope = EVERYONE) -> int:
        """The number of callers in this space, to one in fifty: to count a million is slow."""
        if scope.is_everyone:
            return self._count_everyone()
        state = self._current_state()
        allowed, excluded = state.groups.ids(scope)
        if allowed is not None:
            return self._count_callers_of(state, scope, allowed)
        assert excluded is not None  # noqa: S101  of the two, one is there
        return max(0, self._count_everyone() - self._count_callers_of(state, scope, excluded))

    def _count_callers_of(self, state: IndexState, scope: Scope, ids: IdSet) -> int:
        """The number of callers who have these voiceprints of a scope; exact up to `_SAMPLED` of them."""
        counted = state.groups.counted(scope)
        if counted is not None:
            before, callers = counted
            if before is ids:
                return callers
            if len(ids) > _SAMPLED and abs(len(ids) - len(before)) * 50 <= len(before):
                return min(callers, len(ids))
        sample = ids.ids
        if len(ids) > _SAMPLED:
            sample = np.random.default_rng(0).choice(ids.ids, _SAMPLED, replace=False)
        callers = self._estimate_callers(sample, len(ids))
        state.groups.note_count(scope, ids, callers)
        return callers

    def _count_everyone(self) -> int:
        index = self._current_index()
        prints = len(index)
        counted_at, counted = self._shared.counted
        if abs(prints - counted_at) * 50 > counted_at:
            if self.storage.spaces().keys() <= {self.encoder}:
                counted = self.storage.count_enrolled()
            else:
                counted = self._estimate_callers(index.sample(_SAMPLED), prints)
            self._shared.counted = prints, counted
        return min(counted, prints)

    def _estimate_callers(self, sample: NDArray[np.int64], voiceprints: int) -> int:
        """The number of callers of so many voiceprints, from a sample of these; exact from all of them.

        A store counts the callers of all spaces, and all callers of one space only by reading every record. A
        voiceprint of a caller with m of them stands for 1/m callers.
        """
        sampled = set(sample.tolist())
        hits, callers = 0, 0.0
        for caller in self.storage.callers_of(sample):
            prints = self.prints_of(caller)
            mine = sum(one.id in sampled for one in prints)
            hits += mine
            callers += mine / max(1, len(prints))
        return round(callers * voiceprints / max(1, hits))

    def scorer(self, calibration_path: str | None = None) -> GalleryScorer:
        """The scorer of the current gallery. calibration_path: None is the package's calibration."""
        from voiceprint.scoring import calibration_for

        calibration = calibration_for(self.encoder, calibration_path)
        scorer = self._shared.scorers.get(self.storage, self._current_index(), self.count_callers)
        return scorer.with_calibration(calibration)

    def expected_fpir(self, threshold: float) -> float | None:
        """The expected share of strangers whose cosine with some caller reaches a threshold, 0 to 1.

        Estimated from the similarity of the gallery's callers to each other; None with too few callers.
        """
        statistics: ImpostorStatistics | None = self._shared.scorers.cosine_statistics(
            self.storage, self._current_index(), self.count_callers
        )
        return None if statistics is None else statistics.fpir(threshold, self.count_callers())

    def left_out_scores(self, calibration_path: str | None = None) -> LeftOutScores:
        """The scores of the gallery's own callers, each left out in turn."""
        from voiceprint.identification.left_out import left_out_scores

        scorer = self.scorer(calibration_path)
        cohort, cosines = self._shared.scorers.left_out(
            self.storage, self._current_index(), self.count_callers
        )
        return left_out_scores(scorer, cohort, cosines, self.count_callers())

    # Warnings, of which a process logs each once

    def _warn_of_other_spaces(self) -> None:
        message = None if self._shared.warned_of_other_spaces else other_spaces(self.storage, self.encoder)
        if message is not None:
            self._shared.warned_of_other_spaces = True
            logger.warning("%s: %s", self.storage, message)

    def warn_of_empty_groups(self, names: Iterable[str]) -> None:
        """Log once that nobody is in a group: a name that is typed wrong would never find anybody."""
        groups = self._current_state().groups
        for name in names:
            if name not in groups and name not in self._shared.warned_of_groups:
                if len(self._shared.warned_of_groups) < _WARNED_GROUPS:
                    self._shared.warned_of_groups.add(name)
                logger.warning("%s: nobody is in the watched group %r.", self.storage, name)

    def expects_other_spaces(self) -> None:
        """Log no warning of callers without a voiceprint of this space, as while they move to it."""
        self._shared.warned_of_other_spaces = True

    @property
    def warned_of_rule(self) -> bool:
        """Whether the process has logged a warning of the default rule of acceptance."""
        return self._shared.warned_of_rule

    @warned_of_rule.setter
    def warned_of_rule(self, value: bool) -> None:
        self._shared.warned_of_rule = value

    # Upkeep

    def rebuild(self, progress: Progress | None = None) -> GalleryIndex:
        """Build the index anew from the store, train it, and write the snapshot."""
        with self._shared.lock:
            self._shared.state = self._build(self.storage.identity(), progress, anew=True)
        index = self.refresh()
        index.wait()
        self.write_snapshot()
        return index

    def tune(self, recall: float | None) -> GalleryIndex:
        """Measure the part of the index that a search needs to probe, and write the snapshot."""
        index = self.refresh()
        try:
            index.tune(recall)
        except ValueError as error:  # a recall out of range
            raise InvalidArgumentError(str(error)) from None
        index.wait()
        self.write_snapshot()
        return index

    def lag(self) -> int | None:
        """The changes of the store that are not in the index yet; None before it is built."""
        state = self._shared.state
        return None if state is None else max(0, self.storage.position().revision - state.position.revision)

    def close(self) -> None:
        """Write the snapshot, if enough has changed, or bring servers up. The gallery remains usable."""
        engine = self._shared.engine
        if engine.is_shared:
            try:
                if self._shared.state is not None or engine.load(self.storage) is not None:
                    self.refresh()  # a command that removed a caller has not searched
            except StorageError:  # a server is away, or the store was closed: other processes follow it
                return
        state = self._shared.state  # another thread may be about to change it
        if state is not None:
            self._shared.engine.close(self.storage, state.vectors, self._stamp(state))

    def write_snapshot(self) -> None:
        """Write the snapshot now, if it has a path.

        Raises `ConfigurationError` where another file lies there; other failures are logged.
        """
        with self._shared.lock:  # not while another thread applies changes
            index, stamp = self._stamped()
        self._shared.engine.keep(self.storage, index, stamp)

    def export_index(self, path: Path) -> GalleryIndex:
        """Write the index, in step with the store and trained, to a file for another machine.

        Raises `InvalidArgumentError` and `ConfigurationError`.
        """
        self.refresh().wait()
        with self._shared.lock:  # not while another thread applies changes
            index, stamp = self._stamped()
        self._shared.engine.export(path, index, stamp, self.storage)
        return index

    def import_index(self, path: Path) -> GalleryIndex:
        """Take the index of an exported file, apply the changes since, and write the snapshot.

        Raises `InvalidArgumentError` for a file that does not fit; the index is then as before.
        """
        shared = self._shared
        with shared.lock:
            identity = self.storage.identity()
            index, position = shared.engine.import_(path, self.storage)
            shared.state = IndexState(index, identity, position, self._groups())
            shared.scorers.reset()
        index = self.refresh()
        index.wait()
        self.write_snapshot()
        return index

    def snapshot_path(self) -> Path | None:
        """The path of the snapshot; None without one."""
        return self._shared.engine.path(self.storage)

    def _stamp(self, state: IndexState) -> Stamp:
        return Stamp(state.store, self.encoder, state.position)

    def _stamped(self) -> tuple[GalleryIndex, Stamp]:
        state = self._known_state()
        return state.vectors, self._stamp(state)

    def check(self) -> list[Finding]:
        """Compare the index with the store, both ways, and its parts with each other."""
        index = self.refresh()
        faults = [
            Finding(code="index_fault", place=f"index over {self.storage.location}", message=f"{fault}.")
            for fault in index.check()
        ]
        found: dict[int, tuple[str, str]] = {}
        unseen = set(index.ids().tolist())
        for ids, embeddings in self.storage.scan(encoder=self.encoder):
            there, indexed = index.vectors_of(ids)
            unseen.difference_update(ids.tolist())
            for id_ in ids[~there].tolist():
                found[id_] = "not_indexed", "It is in the store and not in the index: it cannot be found."
            differences = np.abs(indexed - embeddings[there]).max(axis=1, initial=0)
            for id_ in ids[there][differences > _STORED_PRECISION].tolist():
                found[id_] = "indexed_otherwise", "The index holds another embedding than the store."
        for id_ in unseen:
            found[id_] = "not_stored", "It is in the index and not in the store."
        return faults + [
            Finding(code=code, place=f"voiceprint {id_}", message=message)
            for id_, (code, message) in sorted(found.items())
        ]
