"""The writing queries of the SQL store."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from sqlalchemy import Connection, RowMapping, Table, UpdateBase, delete, select
from sqlalchemy.engine import Dialect as Compiler
from sqlalchemy.sql.compiler import SQLCompiler

from voiceprint.storage import state as limits
from voiceprint.storage.base import Deletion
from voiceprint.storage.codec import details_fields, provenance_field
from voiceprint.storage.deletions import deletion_digest
from voiceprint.storage.records import CallerRecord, PrintRecord
from voiceprint.storage.sealed_codec import CallerSeals, StoreSeals
from voiceprint.storage.sealing import split_seal
from voiceprint.storage.sql import statements as sql
from voiceprint.storage.sql.dialect import Dialect
from voiceprint.storage.sql.reader import CHUNK, Reader, Row, chunks
from voiceprint.storage.sql.rows import as_blob, blob_length
from voiceprint.storage.sql.tables import commits, deletions, tombstones
from voiceprint.storage.state import StoreState
from voiceprint.storage.transaction import Transaction
from voiceprint.validation import EMBEDDING_DIMENSIONS

# Commits whose tokens the change feed remembers, at most 35 MB. An index further behind is rebuilt.
MAX_COMMITS = 1_000_000
# Rows that PostgreSQL takes by COPY. Of fewer, an INSERT takes no longer.
COPIED_ROWS = 5


class PartialState(StoreState):
    """The callers of a transaction, in place of the whole state."""

    def __init__(self, reader: Reader, loaded: dict[str, CallerRecord], header: RowMapping) -> None:
        super().__init__(
            loaded.values(),
            identity=header["identity"],
            revision=header["revision"],
            next_id=header["next_id"],
            feed_floor=header["feed_floor"],
            encryption=header["encryption"] or "",
        )
        self._reader = reader
        self._deleted_since: dict[str, dict[tuple[str, str], str]] = {}

    def may_note_deletions(self, time: str) -> bool:
        # One query for all new callers of a transaction: hardly any noted deletion is from the future.
        if time not in self._deleted_since:
            self._deleted_since[time] = self._reader.deleted_since(time)
        return bool(self._deleted_since[time])

    def deleted_since(self, key: str, digest: str, time: str) -> str | None:
        return self._deleted_since[time].get((key, digest)) if self.may_note_deletions(time) else None

    def has_id(self, id_: int) -> bool:
        return bool(self._reader.owners([id_]))

    def has_prints(self, encoder: str, besides: Container[str] = ()) -> bool:
        # All of `besides` are loaded, so the store has others if it has more than theirs.
        theirs = sum(
            print_.encoder == encoder
            for caller in self.callers.values()
            if caller.caller_id in besides
            for print_ in caller.voiceprints
        )
        return self._reader.has_prints(encoder, besides=theirs)


class Writer(Reader):
    """Writes to the store within one transaction of its database."""

    def __init__(self, connection: Connection, database: Dialect, seals: StoreSeals) -> None:
        super().__init__(connection, database.name, seals)
        self._database = database
        self._seals: dict[str, CallerSeals] = {}  # of the callers that `write` writes encrypted

    def base(self, caller_ids: Iterable[str], ids: Iterable[int], spaces: Iterable[str]) -> PartialState:
        """The part of the committed state that a transaction on these callers needs.

        ids, spaces: of the voiceprints that it may add.
        """
        names = list(caller_ids)
        if len(names) == 1:  # the usual transaction, in one statement less
            asked = {"caller": names[0]}
            header = self.rows.header(self.connection.execute(sql.STORE_AND_CALLER, asked).mappings().all())
            exists = header["caller_id"] is not None
            loaded = {names[0]: self._with_prints(header)} if exists else {}
        else:
            header, loaded = self.header(), self._callers_to_change(names)
        base = PartialState(self, loaded, header)
        base.owner.update(self.owners(set(ids) - set(base.owner)))
        for space in set(spaces) - set(EMBEDDING_DIMENSIONS):
            blob = self.connection.execute(sql.DIMENSION, {"space": space}).scalar()
            if blob is not None:
                base.dimensions[space] = blob_length(blob) // 4
        return base

    def _callers_to_change(self, names: Iterable[str]) -> dict[str, CallerRecord]:
        found = {}
        for ids in chunks(names, CHUNK):
            rows = self.connection.execute(sql.CALLERS_TO_CHANGE, {"ids": ids}).mappings().all()
            found.update({record.caller_id: record for record in self._joined(rows)})
        return found

    def touch(self, caller_id: str, seen: str) -> bool:
        """Move the caller's `last_seen` to `seen`, never back; False for an unknown caller."""
        moved = self.connection.execute(sql.TOUCH, {"caller": caller_id, "seen": seen}).rowcount
        return (
            moved > 0 or self.connection.execute(sql.CALLER_EXISTS, {"caller": caller_id}).first() is not None
        )

    def write(self, transaction: Transaction) -> None:
        """Write the changes to the tables. The removals come first, as ids and slots may be used again."""
        before = transaction.base.callers
        removed = [caller_id for caller_id, record in transaction.callers.items() if record is None]
        written = [record for record in transaction.callers.values() if record is not None]
        remaining = {print_.id for record in written for print_ in record.voiceprints}
        with self.rows.seals.prefetched(record.data_key for record in written):
            self._seals = {
                record.caller_id: self.rows.seals.of(record.caller_id, record.data_key)
                for record in written
                if record.data_key is not None
            }
        replaced = [before[name] for name in transaction.callers if name in before]
        self._delete_prints(
            [p.id for record in replaced for p in record.voiceprints if p.id not in remaining]
        )
        self._delete_moved_prints(written, before)
        self._delete_callers([caller_id for caller_id in removed if caller_id in before])
        self._write_callers(written, before)
        self._write_prints(written, before)
        floor = self._write_tombstones(transaction)
        self._note_deletions(transaction)
        counters = {
            "revision": transaction.revision,
            "next_id": transaction.next_id,
            "feed_floor": floor,
            "encryption": transaction.encryption or None,
        }
        self._execute(sql.UPDATE_STORE, [counters])

    def _execute(self, statement: UpdateBase, rows: list[Row], *, each: bool = True) -> None:
        """Run a statement for each of the rows; each: every run must change one row.

        Compiled once for all: SQLAlchemy's own way takes as long for the parameters of a row as the database
        for the row.
        """
        changed = self._copied(statement, rows)
        if changed is None:
            text, order = _compiled(statement, self.connection.dialect)
            given = rows if order is None else [tuple([row[name] for name in order]) for row in rows]
            changed = self.connection.exec_driver_sql(text, given).rowcount
        if each and 0 <= changed != len(rows):  # -1: the driver does not count
            self.rows.corrupt(
                f"table {statement.table}",
                f"has taken {changed} of {len(rows)} changes: a trigger or a rule drops them",
            )

    def _copied(self, statement: UpdateBase, rows: list[Row]) -> int | None:
        """The number of rows that the bulk load of the database inserted; None without one."""
        table = statement.table
        if len(rows) < COPIED_ROWS or not statement.is_insert or not isinstance(table, Table):
            return None
        names = [column.name for column in table.columns]
        return self._database.copy_rows(
            self.connection, table, [tuple([row[name] for name in names]) for row in rows]
        )

    def _delete_prints(self, ids: list[int]) -> None:
        if ids:
            self._execute(sql.DROP_PRINT, [{"removed": id_} for id_ in ids])

    def _delete_moved_prints(self, written: list[CallerRecord], before: dict[str, CallerRecord]) -> None:
        # A restore may move a voiceprint from one caller to another.
        owner = {print_.id: record.caller_id for record in before.values() for print_ in record.voiceprints}
        moved = [
            print_.id
            for record in written
            for print_ in record.voiceprints
            if owner.get(print_.id, record.caller_id) != record.caller_id
        ]
        self._delete_prints(moved)

    def _delete_callers(self, caller_ids: list[str]) -> None:
        if caller_ids:
            self._execute(sql.DROP_CALLER, [{"removed": caller_id} for caller_id in caller_ids])

    def _write_callers(self, written: list[CallerRecord], before: dict[str, CallerRecord]) -> None:
        new: list[Row] = []
        changed: list[Row] = []
        for record in written:
            row = {
                "caller_id": record.caller_id,
                "created_at": record.created_at,
                "last_seen": record.last_seen,
                "data_key": record.data_key,
                **self._details(record),
            }
            (changed if record.caller_id in before else new).append(row)
        if changed:
            self._execute(sql.UPDATE_CALLER, [{**row, "key": row["caller_id"]} for row in changed])
        if new:
            self._execute(sql.NEW_CALLER, new)
        self._write_groups(written, before)

    def _details(self, record: CallerRecord) -> Row:
        """The columns of metadata and details, sealed in an encrypted store."""
        seals = self._seals.get(record.caller_id)
        if seals is None:
            return {
                "metadata": orjson.dumps(record.metadata).decode(),
                "details": _json_or_null(details_fields(record)),
                "sealed": None,
            }
        return {
            "metadata": "{}",
            "details": None if record.opt_out is None else '{"opt_out":{}}',  # `touch` looks for it
            "sealed": seals.details(record),
        }

    def _write_groups(self, written: list[CallerRecord], before: dict[str, CallerRecord]) -> None:
        earlier = {name: record.groups for name, record in before.items()}
        forgotten = {name for name, record in before.items() if record.is_forgotten}  # have unknown groups
        changed = [
            record
            for record in written
            if record.caller_id in forgotten or record.groups != earlier.get(record.caller_id, ())
        ]
        old = [
            {"removed": record.caller_id}
            for record in changed
            if record.caller_id in forgotten or earlier.get(record.caller_id)
        ]
        if old:
            self._execute(sql.DROP_GROUPS, old, each=False)
        new = [{"name": name, "caller_id": record.caller_id} for record in changed for name in record.groups]
        if new:
            self._execute(sql.NEW_GROUP, new)

    def _write_prints(self, written: list[CallerRecord], before: dict[str, CallerRecord]) -> None:
        new: list[Row] = []
        changed: list[Row] = []
        augmented: list[Row] = []
        for record in written:
            stored = before.get(record.caller_id)
            seals = self._seals.get(record.caller_id)
            for print_, row, is_new in self._print_rows(record, stored.voiceprints if stored else ()):
                (new if is_new else changed).append({**row, **_print_columns(print_, seals)})
                if print_.augmented is not None:
                    columns = _augmented_columns(print_, print_.augmented, seals)
                    augmented.append({"voiceprint_id": print_.id, "revision": print_.revision, **columns})
        if changed:
            self._execute(sql.UPDATE_PRINT, [{**row, "key": row["id"]} for row in changed])
            self._execute(sql.DROP_AUGMENTED, [{"removed": row["id"]} for row in changed], each=False)
        if new:
            self._execute(sql.NEW_PRINT, new)
        if augmented:
            self._execute(sql.NEW_AUGMENTED, augmented)

    def _print_rows(
        self, record: CallerRecord, before: tuple[PrintRecord, ...]
    ) -> Iterator[tuple[PrintRecord, Row, bool]]:
        """The voiceprints that differ from the stored ones, their rows, and whether each is new."""
        stored = {print_.id: print_ for print_ in before}
        taken = {self.rows.slots[print_.id][0] for print_ in record.voiceprints if print_.id in stored}
        free = (slot for slot in range(len(taken) + len(record.voiceprints)) if slot not in taken)
        last = -1
        for print_ in record.voiceprints:
            previous = stored.get(print_.id)
            slot, position = self.rows.slots[print_.id] if previous is not None else (next(free), last + 1)
            moved = position <= last
            position = last = last + 1 if moved else position
            if previous is print_ and not moved:
                continue
            yield (
                print_,
                {
                    "id": print_.id,
                    "caller_id": record.caller_id,
                    "slot": slot,
                    "position": position,
                    "encoder": print_.encoder,
                    "created_at": print_.created_at,
                    "revision": print_.revision,
                },
                previous is None,
            )

    def _write_tombstones(self, transaction: Transaction) -> int:
        """Write the commit and its removed ids for the change feed; returns the floor of the feed."""
        before: int = transaction.base.feed_floor
        if not transaction.changes_voiceprints:
            return before
        self._execute(sql.NEW_COMMIT, [{"revision": transaction.revision, "token": transaction.token}])
        floor = max(before, transaction.revision - MAX_COMMITS)
        # Without those that this transaction itself has added.
        removed = sorted({id_ for id_ in transaction.removed if id_ in transaction.base.owner})
        if removed:
            self._execute(
                sql.NEW_TOMBSTONE,
                [{"revision": transaction.revision, "voiceprint_id": id_} for id_ in removed],
            )
            beyond = self.connection.execute(
                sql.NEWEST_SURPLUS_TOMBSTONE, {"size": limits.MAX_TOMBSTONES}
            ).scalar()
            floor = max(floor, beyond or 0)
        if floor > before:
            self.connection.execute(delete(tombstones).where(tombstones.c.revision <= floor))
            self.connection.execute(delete(commits).where(commits.c.revision < floor))
        return floor

    def _note_deletions(self, transaction: Transaction) -> None:
        given = [Deletion(*entry, time) for entry, time in transaction.deletions.items()]
        if given:
            self._drop_deletions(self.noted(given))
            self._execute(sql.NEW_DELETION, [deletion._asdict() for deletion in given])
        if transaction.restored:
            keys = self.connection.execute(select(deletions.c.key).distinct()).scalars().all()
            since = {
                (key, deletion_digest(key, caller_id)): created_at
                for key in keys
                for caller_id, created_at in transaction.restored.items()
            }
            noted = self.noted(Deletion(*entry, "") for entry in since)
            self._drop_deletions(
                entry for entry, time in noted.items() if since[entry] is None or time >= str(since[entry])
            )

    def _drop_deletions(self, entries: Iterable[tuple[str, str]]) -> None:
        rows = [{"of_key": key, "of_digest": digest} for key, digest in entries]
        if rows:
            self._execute(sql.DROP_DELETION, rows)


def _print_columns(print_: PrintRecord, seals: CallerSeals | None) -> Row:
    """The columns of a voiceprint that an encrypted store seals."""
    if seals is None:
        details = _json_or_null(provenance_field(print_))
        return {"embedding": as_blob(print_.embedding), "details": details, "seal": None}
    ciphertext, seal = split_seal(seals.embedding(print_))
    return {"embedding": ciphertext, "details": None, "seal": seal + (seals.provenance(print_) or b"")}


def _augmented_columns(print_: PrintRecord, vector: NDArray[np.float32], seals: CallerSeals | None) -> Row:
    sealed = None if seals is None else seals.augmented(print_)
    if sealed is None:
        return {"embedding": as_blob(vector), "seal": None}
    ciphertext, seal = split_seal(sealed)
    return {"embedding": ciphertext, "seal": seal}


def _json_or_null(fields: dict[str, Any]) -> str | None:
    # An opt-out first: `touch` looks for it there.
    ordered = sorted(fields.items(), key=lambda field: field[0] != "opt_out")
    return orjson.dumps(dict(ordered)).decode() if fields else None


@lru_cache(maxsize=64)
def _compiled(statement: UpdateBase, dialect: Compiler) -> tuple[str, list[str] | None]:
    """A statement as SQL text, and the order of its parameters, None if they are named."""
    compiled = statement.compile(dialect=dialect)
    assert isinstance(compiled, SQLCompiler)  # noqa: S101  for the types
    return str(compiled), compiled.positiontup if compiled.positional else None
