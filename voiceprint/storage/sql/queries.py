"""The statements of the SQL store, and the way from rows to records and back.

Written with SQLAlchemy Core and nothing of one database, so that any that SQLAlchemy knows can follow.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any, NoReturn

import numpy as np
import orjson
from numpy.typing import NDArray
from sqlalchemy import (
    Connection,
    Dialect,
    RowMapping,
    Select,
    UpdateBase,
    and_,
    bindparam,
    delete,
    func,
    insert,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.sql.compiler import SQLCompiler

from voiceprint.errors import InvalidArgumentError, StorageCorruptError
from voiceprint.storage import records as rules
from voiceprint.storage.base import START, Changes, Deletion, Position
from voiceprint.storage.json_format import depth
from voiceprint.storage.records import CallerRecord, Change, PrintRecord, Records
from voiceprint.storage.sql.tables import (
    callers,
    commits,
    deletions,
    simulated,
    store,
    tombstones,
    voiceprints,
)
from voiceprint.validation import EMBEDDING_DIMENSIONS, MAX_METADATA_DEPTH, check_caller_id, check_time

# Values that one statement asks for: more than this many parameters is beyond what some databases take.
_ASKED = 500
# Voiceprints of one page of the change feed. One revision is never divided.
FEED_PAGE = 10_000
# Revisions whose tokens are kept, at most 35 MB: an index that is further behind is rebuilt.
COMMITS_KEPT = 1_000_000
# What is in the store is of length 1 but for rounding. Farther off, bits have changed.
_UNIT_TOLERANCE = 1e-3
_MAX_ID = 2**63 - 1

_STORE = select(store.c.identity, store.c.revision, store.c.next_id, store.c.feed_floor)
_CALLERS = select(callers)
_PRINTS = select(voiceprints, simulated.c.embedding.label("simulated")).outerjoin_from(
    voiceprints,
    simulated,
    and_(simulated.c.voiceprint_id == voiceprints.c.id, simulated.c.revision == voiceprints.c.revision),
)
# What a change is made on top of is locked, where the database knows locks of rows: `touch` waits for the
# change, and does not see it undone.
_CALLER = _CALLERS.where(callers.c.caller_id == bindparam("caller")).with_for_update().subquery()
_STORE_AND_CALLER = _STORE.add_columns(_CALLER).select_from(store.outerjoin(_CALLER, true()))
_ADVANCE = update(store).values({name: bindparam(name) for name in ("revision", "next_id", "feed_floor")})
_NEW_CALLER = insert(callers)
_NEW_PRINT = insert(voiceprints)
_NEW_SIMULATED = insert(simulated)
_NEW_TOMBSTONE = insert(tombstones)
_NEW_COMMIT = insert(commits)
_NEW_DELETION = insert(deletions)
_DROP_DELETION = delete(deletions).where(
    deletions.c.key == bindparam("of_key"), deletions.c.digest == bindparam("of_digest")
)
_DELETIONS_OF = select(deletions).where(
    deletions.c.key == bindparam("of_key"), deletions.c.digest.in_(bindparam("digests", expanding=True))
)
_DELETED_SINCE = select(deletions).where(deletions.c.deleted_at >= bindparam("time"))
_LAST_COMMIT = select(commits.c.revision, commits.c.token).order_by(commits.c.revision.desc()).limit(1)
_LAST_COMMIT_UPTO = _LAST_COMMIT.where(commits.c.revision <= bindparam("upto"))
_COMMIT_AT = select(commits.c.token).where(commits.c.revision == bindparam("at"))
_DROP_CALLER = delete(callers).where(callers.c.caller_id == bindparam("gone"))
_DROP_PRINT = delete(voiceprints).where(voiceprints.c.id == bindparam("gone"))
_DROP_SIMULATED = delete(simulated).where(simulated.c.voiceprint_id == bindparam("gone"))
_CHANGE_CALLER = (
    update(callers)
    .where(callers.c.caller_id == bindparam("key"))
    .values({name: bindparam(name) for name in ("caller_id", "metadata", "created_at", "last_seen")})
)
_CHANGE_PRINT = (
    update(voiceprints)
    .where(voiceprints.c.id == bindparam("key"))
    .values({column.name: bindparam(column.name) for column in voiceprints.c})
)
_KNOWN = select(callers.c.caller_id).where(callers.c.caller_id == bindparam("caller"))
_SEEN = (
    update(callers)
    .where(
        callers.c.caller_id == bindparam("caller"),
        or_(callers.c.last_seen.is_(None), callers.c.last_seen < bindparam("seen")),
    )
    .values(last_seen=bindparam("seen"))
)
_CALLERS_OF = _CALLERS.where(callers.c.caller_id.in_(bindparam("ids", expanding=True)))
_CALLERS_TO_CHANGE = _CALLERS_OF.order_by(callers.c.caller_id).with_for_update()
_PRINTS_OF = _PRINTS.where(voiceprints.c.caller_id.in_(bindparam("ids", expanding=True))).order_by(
    voiceprints.c.caller_id, voiceprints.c.position
)
_PRINT = voiceprints.alias()
_PRINTS_BESIDE = _PRINTS.where(
    voiceprints.c.caller_id.in_(
        select(_PRINT.c.caller_id).where(_PRINT.c.id.in_(bindparam("ids", expanding=True)))
    )
).order_by(voiceprints.c.caller_id, voiceprints.c.position)
_ONE_CALLER = _CALLERS.where(callers.c.caller_id == bindparam("caller"))
_ONE_CALLERS_PRINTS = _PRINTS.where(voiceprints.c.caller_id == bindparam("caller")).order_by(
    voiceprints.c.position
)
_PAGE = (
    _CALLERS.where(callers.c.caller_id > bindparam("after"))
    .order_by(callers.c.caller_id)
    .limit(bindparam("size"))
)
_OWNERS = select(voiceprints.c.id, voiceprints.c.caller_id).where(
    voiceprints.c.id.in_(bindparam("ids", expanding=True))
)
_SPACE = voiceprints.c.encoder == bindparam("space")
_SCAN = (
    select(voiceprints.c.id, voiceprints.c.embedding)
    .where(_SPACE, voiceprints.c.id > bindparam("after"))
    .order_by(voiceprints.c.id)
    .limit(bindparam("size"))
)
_DIMENSION = select(voiceprints.c.embedding).where(_SPACE).limit(1)
_SOME_IDS = select(voiceprints.c.id).where(_SPACE).limit(bindparam("size"))
_SINCE = voiceprints.c.revision > bindparam("since")
_FIRST_CHANGED = select(func.min(voiceprints.c.revision)).where(_SPACE, _SINCE)
_NEXT_PAGE = (
    select(voiceprints.c.revision)
    .where(_SPACE, _SINCE)
    .order_by(voiceprints.c.revision)
    .offset(bindparam("size"))
    .limit(1)
)
_CHANGED = (
    select(voiceprints.c.id, voiceprints.c.embedding)
    .where(_SPACE, _SINCE, voiceprints.c.revision <= bindparam("upto"))
    .order_by(voiceprints.c.id)
)
_REMOVED = (
    select(tombstones.c.voiceprint_id)
    .where(tombstones.c.revision > bindparam("since"), tombstones.c.revision <= bindparam("upto"))
    .order_by(tombstones.c.revision, tombstones.c.voiceprint_id)
)
_OLDEST_KEPT = (
    select(tombstones.c.revision).order_by(tombstones.c.revision.desc()).offset(bindparam("size")).limit(1)
)

Row = dict[str, Any]


class Queries:
    """What the store asks of its database and writes to it, within one transaction.

    name: of the database, for messages. A row that cannot be trusted is a `StorageCorruptError` that
    names the database and the place, and never quotes what stands there.
    """

    def __init__(self, connection: Connection, name: str) -> None:
        self.connection = connection
        self.name = name
        # Slot and position of each voiceprint that was read.
        self._places: dict[int, tuple[int, int]] = {}

    # Reading

    def header(self) -> RowMapping:
        """identity, revision, next_id and feed_floor of the store."""
        return self._checked(self.connection.execute(_STORE).mappings().all())

    def _checked(self, rows: Sequence[RowMapping]) -> RowMapping:
        if len(rows) != 1:
            self.corrupt("table store", f"has {len(rows)} rows where one should be")
        header = rows[0]
        for field in ("revision", "next_id", "feed_floor"):
            if type(header[field]) is not int or not 0 <= header[field] < rules.COUNTER_END:
                self.corrupt("table store", f"has no whole number where the {field} should be")
        if not isinstance(header["identity"], str) or not header["identity"]:
            self.corrupt("table store", "has no identity")
        if header["feed_floor"] > header["revision"]:
            self.corrupt("table store", "remembers its changes from a revision that is yet to come")
        return header

    def caller(self, caller_id: str) -> CallerRecord | None:
        """One caller with all voiceprints."""
        row = self.connection.execute(_ONE_CALLER, {"caller": caller_id}).mappings().first()
        return None if row is None else self._with_prints(row)

    def _with_prints(self, row: RowMapping) -> CallerRecord:
        asked = {"caller": row["caller_id"]}
        return self.record(row, self.connection.execute(_ONE_CALLERS_PRINTS, asked).mappings().all())

    def callers(self, caller_ids: Iterable[str]) -> dict[str, CallerRecord]:
        """Those of the callers that are in the store."""
        found = {}
        for ids in _chunks(caller_ids, _ASKED):
            if len(ids) == 1:
                record = self.caller(ids[0])
                found.update({} if record is None else {ids[0]: record})
                continue
            rows = self.connection.execute(_CALLERS_OF, {"ids": ids}).mappings().all()
            found.update({record.caller_id: record for record in self._joined(rows)})
        return found

    def callers_of(self, ids: Iterable[int]) -> list[CallerRecord]:
        """The callers who have these voiceprints, in the order of ids."""
        wanted = dict.fromkeys(id_ for id_ in ids if 0 < id_ <= _MAX_ID)
        owner: dict[int, CallerRecord] = {}
        for some in _chunks(wanted, _ASKED):
            prints = defaultdict(list)
            for row in self.connection.execute(_PRINTS_BESIDE, {"ids": some}).mappings():
                prints[row["caller_id"]].append(row)
            for row in self.connection.execute(_CALLERS_OF, {"ids": list(prints)}).mappings():
                record = self.record(row, prints[row["caller_id"]])
                owner.update((print_.id, record) for print_ in record.prints)
        found = {owner[id_].caller_id: owner[id_] for id_ in wanted if id_ in owner}
        return [*found.values()]

    def page(self, after: str, size: int) -> list[CallerRecord]:
        """So many callers after that id, in the order of ids."""
        return list(self._joined(self.page_rows(after, size)))

    def all_callers(self) -> Iterator[CallerRecord]:
        """All callers in the order of their ids, read a page at a time."""
        after = ""
        while page := self.page(after, _ASKED):
            yield from page
            after = page[-1].caller_id

    def page_rows(self, after: str, size: int) -> Sequence[RowMapping]:
        """The rows of so many callers after that id, in the order of ids, as they are."""
        given = {"after": after, "size": min(size, _MAX_ID)}
        return self.connection.execute(_PAGE, given).mappings().all()

    def _joined(self, rows: Sequence[RowMapping]) -> Iterator[CallerRecord]:
        return (self.record(row, prints) for row, prints in self.with_prints(rows))

    def with_prints(self, rows: Sequence[RowMapping]) -> Iterator[tuple[RowMapping, list[RowMapping]]]:
        """The rows of callers, each with those of its voiceprints."""
        for some in _chunks(rows, _ASKED):
            prints = defaultdict(list)
            asked = {"ids": [row["caller_id"] for row in some]}
            for row in self.connection.execute(_PRINTS_OF, asked).mappings():
                prints[row["caller_id"]].append(row)
            for row in some:
                yield row, prints[row["caller_id"]]

    def owners(self, ids: Iterable[int]) -> dict[int, str]:
        """Voiceprint id to caller id, of those that are in the store."""
        wanted = sorted({id_ for id_ in ids if 0 < id_ <= _MAX_ID})
        return {
            id_: caller_id
            for some in _chunks(wanted, _ASKED)
            for id_, caller_id in self.connection.execute(_OWNERS, {"ids": some})
        }

    def count(self) -> int:
        """How many voiceprints there are."""
        return self.connection.execute(select(func.count()).select_from(voiceprints)).scalar_one()

    def spaces(self) -> dict[str, int]:
        """How many voiceprints there are of each space."""
        counted = select(voiceprints.c.encoder, func.count()).group_by(voiceprints.c.encoder)
        return {str(space): count for space, count in self.connection.execute(counted)}

    def count_callers(self) -> int:
        """How many callers there are."""
        return self.connection.execute(select(func.count()).select_from(callers)).scalar_one()

    def scan(self, space: str, after: int, size: int) -> tuple[NDArray[np.int64], NDArray[np.float32]] | None:
        """Ids and embeddings of so many voiceprints after that id, or None at the end."""
        given = {"space": space, "after": after, "size": min(size, _MAX_ID)}
        rows = self.connection.execute(_SCAN, given).all()
        return self._arrays(rows, space) if rows else None

    def position(self) -> Position:
        """As `Storage.position`."""
        return self._last_commit(_LAST_COMMIT, {})

    def _last_commit(self, statement: Select[tuple[int, str]], given: Row) -> Position:
        row: Sequence[Any] | None = self.connection.execute(statement, given).first()
        if row is None:
            return START
        if type(row[0]) is not int or not isinstance(row[1], str):
            self.corrupt("table commits", "has something else where a number and a token should be")
        return Position(*row)

    def changes(self, since: Position, space: str) -> Changes | None:
        """As `Storage.changes`."""
        last = self.position()
        if since == last:
            return Changes(last, np.empty(0, dtype=np.int64), *self._arrays([], space))
        if since == START:
            known = self.header()["feed_floor"] == 0
        else:
            known = self.connection.execute(_COMMIT_AT, {"at": since.revision}).scalar() == since.token
        if not known:
            return None
        given: Row = {"space": space, "since": since.revision}
        upto = last
        beyond = self.connection.execute(_NEXT_PAGE, given | {"size": FEED_PAGE}).scalar()
        if beyond is not None:
            first = self.connection.execute(_FIRST_CHANGED, given).scalar_one()
            upto = self._last_commit(_LAST_COMMIT_UPTO, {"upto": max(beyond - 1, first)})
        given["upto"] = upto.revision
        removed = self.connection.execute(
            _REMOVED, {name: given[name] for name in ("since", "upto")}
        ).scalars()
        rows = self.connection.execute(_CHANGED, given).all()
        ids, embeddings = self._arrays(rows, space)
        return Changes(upto, np.array(removed.all(), dtype=np.int64), ids, embeddings, more=upto != last)

    def deletions(self) -> list[Deletion]:
        """As `Storage.deletions`."""
        return [Deletion(*row) for row in self.connection.execute(select(deletions))]

    def deleted_since(self, time: str) -> dict[tuple[str, str], str]:
        """The deletions that are noted for this time or later."""
        rows = self.connection.execute(_DELETED_SINCE, {"time": time})
        return {(key, digest): deleted_at for key, digest, deleted_at in rows}

    def noted(self, given: Iterable[Deletion]) -> dict[tuple[str, str], str]:
        """Those of the deletions that are noted already, with their times."""
        digests: dict[str, list[str]] = {}
        for deletion in given:
            digests.setdefault(deletion.key, []).append(deletion.digest)
        return {
            (row["key"], row["digest"]): row["deleted_at"]
            for key, all_of_it in digests.items()
            for some in _chunks(all_of_it, _ASKED)
            for row in self.connection.execute(_DELETIONS_OF, {"of_key": key, "digests": some}).mappings()
        }

    # Rows to records

    def _arrays(
        self, rows: Sequence[tuple[int, bytes]], space: str
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        ids = [row[0] for row in rows]
        if not rows:
            return np.array(ids, dtype=np.int64), np.empty((0, 0), dtype=np.float32)
        blobs = [row[1] for row in rows]
        size = 4 * EMBEDDING_DIMENSIONS[space] if space in EMBEDDING_DIMENSIONS else _length(blobs[0])
        try:
            matrix = np.frombuffer(b"".join(blobs), dtype="<f4").reshape(len(rows), -1)
            sound = all(len(blob) == size for blob in blobs)
        except (TypeError, ValueError):  # not bytes, or of different lengths
            sound = False
        if sound:
            with np.errstate(over="ignore", invalid="ignore"):
                norms = np.einsum("ij,ij->i", matrix, matrix)
            sound = bool((np.abs(norms - 1) <= 2 * _UNIT_TOLERANCE).all())  # false for NaN too
        if not sound:
            with np.errstate(over="ignore", invalid="ignore"):
                for id_, blob in rows:
                    self._embedding(blob, space, f"voiceprint {id_}")
            self.corrupt(f"the space {space!r}", "has embeddings of different lengths")
        return np.array(ids, dtype=np.int64), matrix.astype(np.float32, copy=False)

    def record(self, row: RowMapping, prints: Sequence[RowMapping]) -> CallerRecord:
        """A caller from the rows, checked."""
        name = row["caller_id"]
        place = f"caller {name[:40]!r}" if isinstance(name, str) else "a caller whose id is not text"
        try:
            with np.errstate(over="ignore", invalid="ignore"):  # here once, and not for each embedding
                return CallerRecord(
                    check_caller_id(name),
                    self._metadata(row["metadata"], place),
                    check_time(row["created_at"]),
                    check_time(row["last_seen"]),
                    tuple([self._print(print_) for print_ in prints]),
                )
        except InvalidArgumentError as error:
            self.corrupt(place, str(error))

    def _metadata(self, text: object, place: str) -> dict[str, Any]:
        if text == "{}":
            return {}
        try:
            value = orjson.loads(text) if isinstance(text, str) else None
        except (orjson.JSONDecodeError, RecursionError):  # not chained: it quotes the text
            value = None
        if not isinstance(value, dict):
            self.corrupt(place, "has metadata that is not a JSON object")
        # Each level takes two characters at least.
        if len(str(text)) > 2 * MAX_METADATA_DEPTH and depth(value) > MAX_METADATA_DEPTH:
            self.corrupt(place, f"has metadata nested more than {MAX_METADATA_DEPTH} levels deep")
        return value

    def _print(self, row: RowMapping) -> PrintRecord:
        id_, revision, space = row["id"], row["revision"], row["encoder"]
        place = f"voiceprint {id_}"
        if type(revision) is not int or revision < 0 or id_ < 1:
            self.corrupt(place, "has no whole number where the id and the revision should be")
        self._places[id_] = row["slot"], row["position"]
        if not all(type(number) is int for number in self._places[id_]):
            self.corrupt(place, "has no whole number where the slot and the position should be")
        if not isinstance(space, str) or not space:
            self.corrupt(place, "is of no named encoder")
        embedding, simulated = self._embedding(row["embedding"], space, place), None
        if row["simulated"] is not None:
            simulated = self._embedding(row["simulated"], space, place)
            if simulated.size != embedding.size:
                self.corrupt(place, f"has embeddings of {embedding.size} and {simulated.size} values")
        return PrintRecord(id_, revision, space, check_time(row["created_at"]), embedding, simulated)

    def _embedding(self, blob: object, space: str, place: str) -> NDArray[np.float32]:
        if not isinstance(blob, bytes) or not blob or len(blob) % 4:
            self.corrupt(place, "has an embedding that is not float32 values")
        embedding = np.frombuffer(blob, dtype="<f4").astype(np.float32, copy=False)
        size = EMBEDDING_DIMENSIONS.get(space, embedding.size)
        if embedding.size != size:
            self.corrupt(place, f"has an embedding of {embedding.size} values, and {size} are right")
        square = float(np.dot(embedding, embedding))
        if not abs(square - 1) <= 2 * _UNIT_TOLERANCE:  # a comparison that NaN fails too
            self.corrupt(place, "has an embedding that is not of length 1")
        return embedding

    def corrupt(self, place: str, what: str) -> NoReturn:
        """Say that what stands at this place cannot be trusted."""
        raise StorageCorruptError(f"{self.name}: {place} {what.rstrip('.')}. Nothing was changed.") from None

    # Writing

    def base(self, caller_ids: Iterable[str], ids: Iterable[int], spaces: Iterable[str]) -> Records:
        """The part of the committed state that a change to these callers, with prints of these ids and
        spaces, has to do with."""
        names = list(caller_ids)
        if len(names) == 1:  # the usual change, in one statement less
            asked = {"caller": names[0]}
            header = self._checked(self.connection.execute(_STORE_AND_CALLER, asked).mappings().all())
            known = header["caller_id"] is not None
            loaded = {names[0]: self._with_prints(header)} if known else {}
        else:
            header, loaded = self.header(), self._callers_to_change(names)
        base = _Part(self, loaded, header)
        base.owner.update(self.owners(set(ids) - set(base.owner)))
        for space in set(spaces) - set(EMBEDDING_DIMENSIONS):
            blob = self.connection.execute(_DIMENSION, {"space": space}).scalar()
            if blob is not None:
                base.dimensions[space] = _length(blob) // 4
        return base

    def _callers_to_change(self, names: Iterable[str]) -> dict[str, CallerRecord]:
        found = {}
        for ids in _chunks(names, _ASKED):
            rows = self.connection.execute(_CALLERS_TO_CHANGE, {"ids": ids}).mappings().all()
            found.update({record.caller_id: record for record in self._joined(rows)})
        return found

    def touch(self, caller_id: str, seen: str) -> bool:
        """Move the caller's `last_seen` to `seen`, never back; whether there is the caller."""
        moved = self.connection.execute(_SEEN, {"caller": caller_id, "seen": seen}).rowcount
        return moved > 0 or self.connection.execute(_KNOWN, {"caller": caller_id}).first() is not None

    def write(self, change: Change) -> None:
        """Make the difference of the change that of the tables. The removals come first: what they free
        may be taken again in the same change."""
        before = change.base.callers
        gone = [caller_id for caller_id, record in change.callers.items() if record is None]
        kept = [record for record in change.callers.values() if record is not None]
        stays = {print_.id for record in kept for print_ in record.prints}
        known = [before[name] for name in change.callers if name in before]
        self._delete_prints([p.id for record in known for p in record.prints if p.id not in stays])
        self._delete_prints_that_moved(kept, before)
        self._delete_callers([caller_id for caller_id in gone if caller_id in before])
        self._write_callers(kept, before)
        self._write_prints(kept, before)
        floor = self._bury(change)
        self._note_deletions(change)
        counters = {"revision": change.revision, "next_id": change.next_id, "feed_floor": floor}
        self._execute(_ADVANCE, [counters])

    def _execute(self, statement: UpdateBase, rows: list[Row], *, each: bool = True) -> None:
        """Run a statement for each of the rows, compiled once for all: SQLAlchemy's own way takes as
        long for the parameters of a row as the database for the row."""
        text, order = _compiled(statement, self.connection.dialect)
        given = rows if order is None else [tuple([row[name] for name in order]) for row in rows]
        changed = self.connection.exec_driver_sql(text, given).rowcount
        if each and 0 <= changed != len(
            rows
        ):  # a trigger has taken rows away; -1 is of a driver that cannot tell
            self.corrupt(
                f"table {statement.table}",
                f"has taken {changed} of {len(rows)} changes: a trigger or a rule drops them",
            )

    def _delete_prints(self, ids: list[int]) -> None:
        if ids:
            self._execute(_DROP_PRINT, [{"gone": id_} for id_ in ids])

    def _delete_prints_that_moved(self, kept: list[CallerRecord], before: dict[str, CallerRecord]) -> None:
        # From one caller to another within the change: restored elsewhere, as a print of its own.
        owner = {print_.id: record.caller_id for record in before.values() for print_ in record.prints}
        moved = [
            print_.id
            for record in kept
            for print_ in record.prints
            if owner.get(print_.id, record.caller_id) != record.caller_id
        ]
        self._delete_prints(moved)

    def _delete_callers(self, caller_ids: list[str]) -> None:
        if caller_ids:
            self._execute(_DROP_CALLER, [{"gone": caller_id} for caller_id in caller_ids])

    def _write_callers(self, kept: list[CallerRecord], before: dict[str, CallerRecord]) -> None:
        new: list[Row] = []
        changed: list[Row] = []
        for record in kept:
            row = {
                "caller_id": record.caller_id,
                "metadata": orjson.dumps(record.metadata).decode(),
                "created_at": record.created_at,
                "last_seen": record.last_seen,
            }
            (changed if record.caller_id in before else new).append(row)
        if changed:
            self._execute(_CHANGE_CALLER, [{**row, "key": row["caller_id"]} for row in changed])
        if new:
            self._execute(_NEW_CALLER, new)

    def _write_prints(self, kept: list[CallerRecord], before: dict[str, CallerRecord]) -> None:
        new: list[Row] = []
        changed: list[Row] = []
        beside: list[Row] = []
        for record in kept:
            known = before.get(record.caller_id)
            for print_, row, is_new in self._print_rows(record, known.prints if known else ()):
                (new if is_new else changed).append(row)
                if print_.augmented is not None:
                    blob = _as_blob(print_.augmented)
                    beside.append(
                        {"voiceprint_id": print_.id, "revision": print_.revision, "embedding": blob}
                    )
        if changed:
            self._execute(_CHANGE_PRINT, [{**row, "key": row["id"]} for row in changed])
            self._execute(_DROP_SIMULATED, [{"gone": row["id"]} for row in changed], each=False)
        if new:
            self._execute(_NEW_PRINT, new)
        if beside:
            self._execute(_NEW_SIMULATED, beside)

    def _print_rows(
        self, record: CallerRecord, known: tuple[PrintRecord, ...]
    ) -> Iterator[tuple[PrintRecord, Row, bool]]:
        """The prints that differ from what is stored, with their rows, and whether each is a new one."""
        stored = {print_.id: print_ for print_ in known}
        taken = {self._places[print_.id][0] for print_ in record.prints if print_.id in stored}
        free = (slot for slot in range(len(taken) + len(record.prints)) if slot not in taken)
        last = -1
        for print_ in record.prints:
            before = stored.get(print_.id)
            slot, position = self._places[print_.id] if before is not None else (next(free), last + 1)
            moved = position <= last
            position = last = last + 1 if moved else position
            if before is print_ and not moved:
                continue
            yield (
                print_,
                {
                    "id": print_.id,
                    "caller_id": record.caller_id,
                    "slot": slot,
                    "position": position,
                    "encoder": print_.encoder,
                    "embedding": _as_blob(print_.embedding),
                    "created_at": print_.created_at,
                    "revision": print_.revision,
                },
                before is None,
            )

    def _bury(self, change: Change) -> int:
        """Remember the commit and the voiceprints that it removed; gives the floor of the feed."""
        before: int = change.base.feed_floor
        if not change.touches_prints:
            return before
        self._execute(_NEW_COMMIT, [{"revision": change.revision, "token": change.token}])
        floor = max(before, change.revision - COMMITS_KEPT)
        # Those that came and went within the change are known to nobody.
        removed = sorted({id_ for id_ in change.removed if id_ in change.base.owner})
        if removed:
            self._execute(
                _NEW_TOMBSTONE, [{"revision": change.revision, "voiceprint_id": id_} for id_ in removed]
            )
            beyond = self.connection.execute(_OLDEST_KEPT, {"size": rules.MAX_TOMBSTONES}).scalar()
            floor = max(floor, beyond or 0)
        if floor > before:
            self.connection.execute(delete(tombstones).where(tombstones.c.revision <= floor))
            self.connection.execute(delete(commits).where(commits.c.revision < floor))
        return floor

    def _note_deletions(self, change: Change) -> None:
        given = [Deletion(*entry, time) for entry, time in change.deletions.items()]
        if given:
            self._drop_deletions(self.noted(given))
            self._execute(_NEW_DELETION, [deletion._asdict() for deletion in given])
        if change.restored:
            known = self.connection.execute(select(deletions.c.key).distinct()).scalars().all()
            since = {
                (key, rules.deletion_digest(key, caller_id)): created_at
                for key in known
                for caller_id, created_at in change.restored.items()
            }
            noted = self.noted(Deletion(*entry, "") for entry in since)
            self._drop_deletions(
                entry for entry, time in noted.items() if since[entry] is None or time >= str(since[entry])
            )

    def _drop_deletions(self, entries: Iterable[tuple[str, str]]) -> None:
        rows = [{"of_key": key, "of_digest": digest} for key, digest in entries]
        if rows:
            self._execute(_DROP_DELETION, rows)

    def has_prints(self, space: str, besides: int) -> bool:
        """Whether there are more than so many voiceprints of this space."""
        asked = {"space": space, "size": besides + 1}
        return len(self.connection.execute(_SOME_IDS, asked).all()) > besides


class _Part(Records):
    """The callers that a change is about, in the place of the whole state."""

    def __init__(self, queries: Queries, loaded: dict[str, CallerRecord], header: RowMapping) -> None:
        super().__init__(
            loaded.values(),
            identity=header["identity"],
            revision=header["revision"],
            next_id=header["next_id"],
            feed_floor=header["feed_floor"],
        )
        self._queries = queries
        self._deleted_since: dict[str, dict[tuple[str, str], str]] = {}

    def deleted_since(self, key: str, digest: str, time: str) -> str | None:
        # One look for all new callers of a change: hardly any deletion is noted for a time to come.
        if time not in self._deleted_since:
            self._deleted_since[time] = self._queries.deleted_since(time)
        return self._deleted_since[time].get((key, digest))

    def has_id(self, id_: int) -> bool:
        return bool(self._queries.owners([id_]))

    def has_prints(self, encoder: str, besides: Container[str] = ()) -> bool:
        # All of `besides` are loaded, so that counting theirs tells whether there are others.
        theirs = sum(
            print_.encoder == encoder
            for caller in self.callers.values()
            if caller.caller_id in besides
            for print_ in caller.prints
        )
        return self._queries.has_prints(encoder, besides=theirs)


@lru_cache(maxsize=64)
def _compiled(statement: UpdateBase, dialect: Dialect) -> tuple[str, list[str] | None]:
    """A statement as the database takes it, and the order of its parameters, None where they are named."""
    compiled = statement.compile(dialect=dialect)
    assert isinstance(compiled, SQLCompiler)  # noqa: S101  for the types
    return str(compiled), compiled.positiontup if compiled.positional else None


def _chunks(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk


def _as_blob(vector: NDArray[np.float32]) -> bytes:
    return vector.astype("<f4", copy=False).tobytes()


def _length(blob: object) -> int:
    return len(blob) if isinstance(blob, bytes) else 0
