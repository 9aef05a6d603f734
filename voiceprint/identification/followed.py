"""`FollowedIndex`: an index on servers, and in memory the changes of the store that are not there yet.

Every process has one over a store. It masks the ids that have changed since the stamp of the servers, and
compares with their present vectors itself: a search is of the position of its process, however far behind the
servers are. A thread brings them up to that position, and any process may be the one that does; see
docs/vector-index.md.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from itertools import takewhile
from typing import Final, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from voiceprint.errors import ConfigurationError, StorageUnavailableError
from voiceprint.identification.follower import Follower
from voiceprint.identification.snapshots import Stamp
from voiceprint.index import (
    IdSet,
    IndexMovedError,
    IndexStatus,
    IndexUnavailableError,
    SearchIndex,
    VectorIndex,
)
from voiceprint.index.base import Ids, filter_of, whole
from voiceprint.index.id_sets import Filter
from voiceprint.index.pgvector import PgVectorIndex, best_of, distinct, in_order_of
from voiceprint.index.pgvector_moment import Found, Moment, State, sample
from voiceprint.index.rows import Scored
from voiceprint.storage.base import START, Changes, Position

_AT_ONCE: Final = 1_000
"""Changes of one transaction: 2 to 4 s of insertions into a graph, for which no other process changes it."""

_TUNED_AGAIN: Final = 2
"""Times as many vectors from which a part is tuned again, as the embedded index is trained again."""

_OVERDUE: Final = timedelta(hours=1)
"""Waiting for a vacuum after which `check` says so: forty times as long as it takes while a process runs."""

_STEP_S: Final = 0.05  # between looks at whether the thread is done

T = TypeVar("T")


class FollowedIndex(SearchIndex):
    """An index of several parts on servers, at the position of the last change that was applied to it.

    parts: one for each server; the id of a vector modulo their number is the number of its part. None holds
    everything in memory. stamps: of the parts, when they were looked at. dimension: of the vectors. recall:
    as `VOICE_INDEX_RECALL`.

    Raises `StorageUnavailableError` where a server cannot be reached, or was put back to an earlier state.
    """

    def __init__(
        self, parts: Sequence[PgVectorIndex], stamps: Sequence[Stamp], dimension: int, recall: float
    ) -> None:
        self._parts = tuple(parts)
        self._recall = recall
        self._changed = VectorIndex(dimension)  # the present vectors of ids in `_tags`
        self._tags: dict[int, Position] = {}  # of the change of each id that the parts may lack, in order
        self._seen = [*stamps]
        self._vouched = [stamp.position for stamp in stamps]  # known to be of the history of the store
        self._states: list[State | None] = [None] * len(parts)
        self._position = min((stamp.position for stamp in stamps), default=START)
        self._base = self._confirmed = self._least_seen()
        self._mask: IdSet | None = None
        self._count: int | None = None
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(len(parts)) if len(parts) > 1 else None
        self._is_tuning = False
        self._follower = Follower(self) if parts else None
        self.is_lost = False
        """True once a part was put back to an earlier state, so that some changes are in neither."""

    @property
    def dimension(self) -> int:
        """Length of the vectors."""
        return self._changed.dimension

    def __repr__(self) -> str:
        return f"{type(self).__name__}(dimension={self.dimension}, parts={len(self._parts)})"

    def __len__(self) -> int:
        with self._lock:
            count, mask, changed = self._count, self._masked(), len(self._changed)
        if count is None:
            # The same whatever the parts have taken in meanwhile, as all of that is masked.
            count = changed + sum(self._read(lambda now: now.vectors - now.count(mask.ids)))
            with self._lock:
                if mask is self._mask:
                    self._count = count
        return count

    # Following the store

    def apply(self, changes: Changes) -> None:
        """Take over a page of the change feed."""
        ids = [*changes.removed.tolist(), *changes.ids.tolist()]
        with self._lock:
            self._changed.remove(changes.removed)
            self._changed.add(changes.ids, changes.embeddings)
            for id_ in ids:
                self._tags.pop(id_, None)  # to its end
                self._tags[id_] = changes.position
            self._mask = self._count = None

    def settle(self, position: Position) -> None:
        """Drop from memory what the parts have, and let the thread bring them to a position.

        To be called when the index is in step with the store. What a part was seen to have is dropped at the
        next call: whoever brought it there may have left out an id that was changed again, and by then this
        index has that change.
        """
        if self._follower is None:
            return
        plans = self._follower.plans_vacuum
        with self._lock:
            self._position = position
            if self._confirmed > self._base:
                self._base = self._confirmed
                old = takewhile(lambda item: item[1].revision <= self._base, self._tags.items())
                gone = [id_ for id_, _ in old]
                self._changed.remove(gone)
                for id_ in gone:
                    del self._tags[id_]
                self._mask = None
            self._confirmed = min(known.revision for known in self._vouched)
            has_work = self._least_seen() < position.revision or any(
                state is not None
                and (self._is_due(self._parts[number], state) or (state.dead and not plans(number)))
                for number, state in enumerate(self._states)
            )
        if has_work:
            self._follower.wake()

    def vouch(self, is_known: Callable[[Position], bool]) -> None:
        """Mark the index as lost where a part has changes of another history of the store.

        A copy of the store, or the store before it was rewound, may have brought it there. is_known: whether
        a position is one of the store. Positions that the store is not known to have reached are left out.
        """
        with self._lock:
            doubtful = {
                number: stamp.position
                for number, stamp in enumerate(self._seen)
                if stamp.position != self._vouched[number]
                and stamp.position.revision <= self._position.revision
            }
        for number, position in doubtful.items():
            if not is_known(position):
                self.is_lost = True
                return
            self._vouched[number] = position

    def _least_seen(self) -> int:
        return min((stamp.position.revision for stamp in self._seen), default=0)

    def _masked(self) -> IdSet:
        """The ids of which the parts count for nothing. The lock is held."""
        if self._mask is None:
            self._mask = IdSet(np.fromiter(self._tags, dtype=np.int64))
        return self._mask

    # Reading

    def _read(self, work: Callable[[Moment], T], wider: int = 1, *, filtered: bool = False) -> list[T]:
        """The result of `work` on each part."""

        with self._lock:
            base = self._base  # what every moment from now on has

        def read(number: int) -> T:
            def look(now: Moment) -> T:
                self._note(number, now.state, base)
                return work(now)

            return on_server(lambda: self._parts[number].read(look, wider=wider, filtered=filtered))

        numbers = range(len(self._parts))
        answers: Iterator[T] = map(read, numbers)
        if self._pool is not None:
            with suppress(RuntimeError):  # while the interpreter ends, a pool takes no more work
                answers = self._pool.map(read, numbers)
        return [*answers]

    def _note(self, number: int, state: State | None, base: int) -> None:
        """Keep the state of a part; raise where it has lost changes that are not in memory any more."""
        with self._lock:
            try:
                stamp = Stamp.from_text({} if state is None else state.stamp)
            except (KeyError, ValueError):
                stamp = None
            before = self._seen[number]
            if (
                stamp is None
                or stamp[:2] != before[:2]
                or stamp.position.revision < base
                or (
                    stamp.position.revision == before.position.revision and stamp != before
                )  # another history
            ):
                self.is_lost = True
                raise StorageUnavailableError(
                    "The index in PostgreSQL was removed, or put back to an earlier state: it is brought up "
                    "to date from the store. Try again."
                )
            self._states[number] = state
            self._seen[number] = stamp  # may be an earlier one, of a dump: the thread expects this one

    def ids(self) -> NDArray[np.int64]:
        """All ids, int64[n], in no particular order."""
        with self._lock:
            mask, changed = self._masked(), self._changed.ids()
        found = np.concatenate([np.empty(0, dtype=np.int64), *self._read(lambda now: now.ids())])
        return np.concatenate([found[~mask.holds(found)], changed])

    def sample(self, count: int) -> NDArray[np.int64]:
        """As `SearchIndex.sample`; each id is the next after a random number, so after a gap likelier."""
        whole("count", count, 0)
        with self._lock:
            mask, changed = self._masked(), np.sort(self._changed.ids())

        def bounds() -> tuple[int, int]:
            of_parts = [found for found in self._read(lambda now: now.bounds(mask.ids)) if found is not None]
            ends = [*of_parts, *([(int(changed[0]), int(changed[-1]))] if len(changed) else [])]
            # Without any: another process has removed them all meanwhile.
            return min((least for least, _ in ends), default=0), max((most for _, most in ends), default=0)

        def following(starts: NDArray[np.int64]) -> NDArray[np.int64]:
            found = self._read(lambda now: now.following(starts, mask.ids))
            places = np.searchsorted(changed, starts)
            found.append(np.append(changed, -1)[places])
            beyond = np.iinfo(np.int64).max
            least: NDArray[np.int64] = np.min([np.where(ids < 0, beyond, ids) for ids in found], axis=0)
            return least

        return sample(count, len(self), bounds, following, self.ids)

    def vectors_of(self, ids: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """As `SearchIndex.vectors_of`."""
        wanted = self._check_ids(ids)
        with self._lock:
            mask = self._masked()
            mine = np.unique(wanted[mask.holds(wanted)] if self._parts else wanted)
            there, vectors = self._changed.vectors_of(mine)
        rest = wanted[~mask.holds(wanted)]
        found = [(mine[there], vectors), *self._read(lambda now: now.vectors_of(rest))]
        return in_order_of(wanted, distinct(found, self.dimension))

    # Searching

    def search(
        self, queries: ArrayLike, k: int, *, allowed: Ids | None = None, excluded: Ids | None = None
    ) -> Scored:
        """As `SearchIndex.search`."""
        whole("k", k, 1)
        matrix = self._check_vectors(queries)
        # Read before the lock: an iterable that asks this very index would wait for itself.
        among = _Scope(allowed, excluded)
        with self._lock:
            mask = self._masked()
            answers = [self._changed.search(matrix, k, allowed=among.allowed, excluded=among.excluded)]
        # Twice as many, as the graph compares with a query that is rounded to float16.
        answers += [
            best_of(matrix, k, found) for found in self._nearest(matrix, k, 2 * k, among.without(mask))
        ]
        scores, ids = (np.concatenate(columns, axis=1) for columns in zip(*answers, strict=True))
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(scores, best, axis=1), np.take_along_axis(ids, best, axis=1)

    def candidates(
        self, queries: ArrayLike, count: int, *, allowed: Ids | None = None, excluded: Ids | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """As `SearchIndex.candidates`."""
        whole("count", count, 1)
        matrix = self._check_vectors(queries)
        among = _Scope(allowed, excluded)
        with self._lock:
            mask = self._masked()
            mine = self._changed.candidates(matrix, count, allowed=among.allowed, excluded=among.excluded)
        theirs = self._nearest(matrix, count, count, among.without(mask))
        return distinct([mine, *(found for answers in theirs for found in answers)], self.dimension)

    def _nearest(
        self, queries: NDArray[np.float32], k: int, wider: int, among: Filter | None
    ) -> list[list[Found]]:
        exact_up_to = max((part.exact_up_to for part in self._parts), default=0)
        return self._read(
            lambda now: [now.nearest(query, k, wider, among, exact_up_to) for query in queries],
            wider,
            filtered=among is not None,
        )

    # Bringing the parts up to the position, which the thread does

    def look(self) -> None:
        """Read the state of the parts."""
        self._read(lambda _: None)

    def push(self) -> bool:
        """Bring the parts nearer to the position; returns whether one was behind."""
        were_behind = [self._push(number) for number in range(len(self._parts))]
        return any(were_behind)

    def _push(self, number: int) -> bool:
        with self._lock:
            seen, target = self._seen[number], self._position
            if seen.position.revision >= target.revision:
                return False
            pending = list[int]()
            for id_, tag in self._tags.items():
                if tag.revision > target.revision:
                    break
                if len(pending) >= _AT_ONCE and tag != self._tags[pending[-1]]:
                    target = self._tags[pending[-1]]
                    break
                if tag.revision > seen.position.revision and id_ % len(self._parts) == number:
                    pending.append(id_)
            ids = np.array(pending, dtype=np.int64)
            there, vectors = self._changed.vectors_of(ids)
        part, stamp = self._parts[number], seen._replace(position=target)
        try:
            on_server(
                lambda: part.apply(
                    ids[~there], ids[there], vectors, stamp=stamp.as_text(), expected=seen.as_text()
                )
            )
        except IndexMovedError:  # by the thread of another process; the next look shows how far
            return True
        with self._lock:
            if stamp.position.revision > self._seen[number].position.revision:
                self._seen[number] = stamp
                self._vouched[number] = target
        return True

    def tune_if_due(self) -> bool:
        """Tune a part that never was, or has grown; returns whether it has tuned one."""
        with self._lock:
            due = [
                part
                for part, state in zip(self._parts, self._states, strict=True)
                if state is not None and self._is_due(part, state)
            ]
        return any(self._tune(part, self._recall, alone=True) for part in due)

    @staticmethod
    def _is_due(part: PgVectorIndex, state: State) -> bool:
        return state.vectors > part.exact_up_to and state.vectors >= _TUNED_AGAIN * state.tuned_at

    def _tune(self, part: PgVectorIndex, recall: float, *, alone: bool = False) -> bool:
        """Tune a part; False where that is left to another process, which is tuning it."""
        self._is_tuning = True
        try:
            return on_server(lambda: part.tune(recall, alone=alone)) is not None
        finally:
            self._is_tuning = False

    def parts_with_dead(self) -> list[int]:
        """The numbers of the parts with removed vectors that wait for a vacuum."""
        with self._lock:
            return [number for number, state in enumerate(self._states) if state is not None and state.dead]

    def vacuum_part(self, number: int) -> None:
        """Have a server overwrite the removed vectors of a part."""
        on_server(self._parts[number].vacuum)

    def vacuum(self) -> None:
        """Have the servers overwrite removed vectors now."""
        for number in range(len(self._parts)):
            self.vacuum_part(number)

    def wait(self, timeout: float | None = None, *, tuned: bool = True) -> bool:
        """Wait until the parts are at the position, and tuned; False where they are not after `timeout` s."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while self._parts:
            self.look()
            with self._lock:
                is_behind = self._least_seen() < self._position.revision
                is_due = tuned and any(
                    state is not None and self._is_due(part, state)
                    for part, state in zip(self._parts, self._states, strict=True)
                )
            if not is_behind and not is_due:
                break
            if deadline is not None and time.monotonic() > deadline:
                return False
            if self._follower is not None:
                self._follower.wake()
            time.sleep(_STEP_S)
        return True

    # Upkeep

    def status(self) -> IndexStatus:
        """How the index searches at this moment."""
        states = [state for state in self._read(lambda now: now.state) if state is not None]
        with self._lock:
            waiting = len(self._tags)
        efforts = [state.ef_search for state in states if state.ef_search is not None]
        is_exact = all(
            state.vectors <= part.exact_up_to for state, part in zip(states, self._parts, strict=False)
        )
        return IndexStatus(
            structure="exact" if is_exact else "hnsw",
            vectors=len(self),
            buffered=waiting,
            nlist=0,
            nprobe=0,
            rerank_k=0,
            recall=1.0 if is_exact else min(state.recall or 0.0 for state in states),
            recall_target=self._recall,
            trained_on=sum(state.tuned_at for state in states),
            training=self._is_tuning,
            reason="up to 5,000 on a server that is as fast as anything else" if is_exact else "",
            engine="pgvector",
            ef_search=max(efforts, default=0),
            dead=sum(state.dead for state in states),
        )

    def tune(self, recall: float | None = None) -> None:
        """Choose again how far searches of the graph go, for another target or with the vectors of now."""
        for part in self._parts:
            self._tune(part, self._recall if recall is None else recall)

    def check(self) -> list[str]:
        """Contradictions of the parts, in words, and vacuums that are overdue; none for a sound index."""

        def look(now: Moment) -> list[str]:
            faults = now.check("in PostgreSQL")
            state = now.state
            if (
                state is not None
                and state.dead_since is not None
                and now.time() - state.dead_since > _OVERDUE
            ):
                faults.append(
                    f"{state.dead} removed vectors of the index wait for a VACUUM since "
                    f"{state.dead_since:%Y-%m-%d %H:%M}: leave a process over the store running"
                )
            return faults

        return self._changed.check() + [fault for faults in self._read(look) for fault in faults]


def on_server(work: Callable[[], T]) -> T:
    """The result of work on a server.

    Raises `StorageUnavailableError` where it cannot be reached, and `ConfigurationError` for an index that
    cannot be of the encoder's dimension.
    """
    try:
        return work()
    except ValueError as error:  # another dimension, or more than a server can index
        raise ConfigurationError(
            f"{error} Use the encoder that enrolled the callers, or VOICE_INDEX=faiss; an index that nobody "
            "uses any more is removed by PgVectorIndex(...).drop()."
        ) from error
    except IndexUnavailableError as error:
        raise StorageUnavailableError(
            f"{error} The callers are safe in the store. Look at the server of VOICE_INDEX_URL."
        ) from error


class _Scope:
    """The filter of a search, of which both sets are read once."""

    def __init__(self, allowed: Ids | None, excluded: Ids | None) -> None:
        self.allowed = allowed if allowed is None or isinstance(allowed, IdSet) else IdSet(allowed)
        self.excluded = excluded if excluded is None or isinstance(excluded, IdSet) else IdSet(excluded)

    def without(self, ids: IdSet) -> Filter | None:
        """The filter, that lets none of these pass either."""
        if not len(ids):
            return filter_of(self.allowed, self.excluded)
        if self.allowed is not None:
            return filter_of(self.allowed - ids, self.excluded)
        return filter_of(None, ids if self.excluded is None else self.excluded | ids)
