"""The reading queries of the SQL store."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Dialect, RowMapping, Select, func, select
from sqlalchemy.sql.compiler import SQLCompiler

from voiceprint.storage.base import START, Changes, Deletion, Position, SpaceCounts
from voiceprint.storage.records import CallerRecord
from voiceprint.storage.sealed_codec import StoreSeals
from voiceprint.storage.sql import statements as sql
from voiceprint.storage.sql.rows import RowDecoder
from voiceprint.storage.sql.tables import callers, deletions, voiceprints
from voiceprint.storage.state import ids_by_group

# Parameters of one statement: some databases take no more than 999.
CHUNK = 500
# Voiceprints of one page of the change feed. A revision is never divided.
FEED_PAGE = 10_000
_MAX_ID = 2**63 - 1
# Voiceprint ids of an identification come in lists of a multiple of this length, filled up with the first.
_IDS_TOGETHER = 16

Row = dict[str, Any]
T = TypeVar("T")


@lru_cache(maxsize=2)
def _compiled_of_each(dialect: Dialect) -> str:
    """`CALLERS_OF_EACH_PRINT` as text."""
    return str(sql.CALLERS_OF_EACH_PRINT.compile(dialect=dialect))


@lru_cache(maxsize=64)
def _compiled(ids: int, dialect: Dialect) -> tuple[str, list[str] | None]:
    """`callers_of_prints` for this many ids as text, and the names of its parameters if they have any."""
    names = [f"id_{number}" for number in range(ids)]
    compiled = sql.callers_of_prints(names).compile(dialect=dialect)
    assert isinstance(compiled, SQLCompiler)  # noqa: S101  for the types
    return str(compiled), None if compiled.positional else names


def _by_caller(rows: Sequence[Sequence[Any]]) -> Iterator[tuple[Row, list[Row]]]:
    """The columns of each caller by name, and those of its voiceprints, from the rows of a join of both."""
    caller, prints = None, list[Row]()
    for row in rows:
        if caller is None or row[0] != caller["caller_id"]:
            if caller is not None:
                yield caller, prints
            caller, prints = dict(zip(sql.CALLER_COLUMNS, row, strict=False)), []
        prints.append(dict(zip(sql.PRINT_COLUMNS, row[len(sql.CALLER_COLUMNS) :], strict=True)))
    if caller is not None:
        yield caller, prints


class Reader:
    """Reads the store within one transaction of its database.

    name: of the database, for messages. seals: of the callers.
    """

    def __init__(self, connection: Connection, name: str, seals: StoreSeals) -> None:
        self.connection = connection
        self.name = name
        self.rows = RowDecoder(name, seals)
        self._has_arrays = connection.dialect.name == "postgresql"

    def header(self) -> RowMapping:
        """identity, revision, next_id and feed_floor of the store."""
        return self.rows.header(self.connection.execute(sql.STORE).mappings().all())

    def caller(self, caller_id: str) -> CallerRecord | None:
        """One caller with all voiceprints."""
        row = self.connection.execute(sql.ONE_CALLER, {"caller": caller_id}).mappings().first()
        record = None if row is None else self._with_prints(row)
        return None if record is None or record.is_forgotten else record

    def _with_prints(self, row: RowMapping) -> CallerRecord:
        asked = {"caller": row["caller_id"]}
        return self.rows.caller(row, self.connection.execute(sql.ONE_CALLERS_PRINTS, asked).mappings().all())

    def callers(self, caller_ids: Iterable[str]) -> dict[str, CallerRecord]:
        """The callers by their ids; unknown ids are left out."""
        found = {}
        for ids in chunks(caller_ids, CHUNK):
            if len(ids) == 1:
                record = self.caller(ids[0])
                found.update({} if record is None else {ids[0]: record})
                continue
            rows = self.connection.execute(sql.CALLERS_OF, {"ids": ids}).mappings().all()
            found.update({record.caller_id: record for record in readable(self._joined(rows))})
        return found

    def callers_of(self, ids: Iterable[int]) -> list[CallerRecord]:
        """The callers who have these voiceprints, in the order of ids."""
        wanted = [*dict.fromkeys(id_ for id_ in ids if 0 < id_ <= _MAX_ID)]
        owner: dict[int, CallerRecord] = {}
        for chunk in chunks(wanted, CHUNK):
            rows = [*_by_caller(self._callers_of(chunk))]
            with self.rows.seals.prefetched(row["data_key"] for row, _ in rows):
                for record in readable(self.rows.caller(row, prints) for row, prints in rows):
                    owner.update((print_.id, record) for print_ in record.voiceprints)
        found = {owner[id_].caller_id: owner[id_] for id_ in wanted if id_ in owner}
        return [*found.values()]

    def _callers_of(self, ids: list[int]) -> Sequence[Sequence[Any]]:
        """The rows of `sql.callers_of_prints`, which every identification reads.

        By a text that is compiled once for so many ids: SQLAlchemy's own way takes as long as the database.
        """
        if self._has_arrays:
            text = _compiled_of_each(self.connection.dialect)
            return self.connection.exec_driver_sql(text, {"ids": ids}).all()
        ids = ids + ids[:1] * (-len(ids) % _IDS_TOGETHER)  # few texts
        text, names = _compiled(len(ids), self.connection.dialect)
        given: Any = tuple(ids) if names is None else dict(zip(names, ids, strict=True))
        return self.connection.exec_driver_sql(text, given).all()

    def page(self, after: str, size: int) -> list[CallerRecord]:
        """At most `size` callers after the id `after`, in the order of ids."""
        page: list[CallerRecord] = []
        while len(page) < size:
            asked = size - len(page)
            rows = self.page_rows(after, asked)
            page += readable(self._joined(rows))
            if len(rows) < asked:
                break
            after = rows[-1]["caller_id"]
        return page

    def all_callers(self) -> Iterator[CallerRecord]:
        """All callers in the order of their ids, read a page at a time."""
        after = ""
        while page := self.page(after, CHUNK):
            yield from page
            after = page[-1].caller_id

    def page_rows(self, after: str, size: int) -> Sequence[RowMapping]:
        """The rows of `page`, not decoded."""
        given = {"after": after, "size": min(size, _MAX_ID)}
        return self.connection.execute(sql.PAGE, given).mappings().all()

    def data_keys(self, after: str, size: int) -> list[tuple[str, bytes | None]]:
        """As `Storage.data_keys`."""
        rows = self.connection.execute(sql.DATA_KEYS, {"after": after, "size": min(size, _MAX_ID)})
        return [(caller_id, data_key) for caller_id, data_key in rows]

    def data_key(self, caller_id: str) -> bytes | None:
        """As `Storage.data_key`."""
        row = self.connection.execute(sql.ONE_CALLER, {"caller": caller_id}).mappings().first()
        return None if row is None else row["data_key"]

    def _joined(self, rows: Sequence[RowMapping]) -> list[CallerRecord]:
        with self.rows.seals.prefetched(row["data_key"] for row in rows):
            return [self.rows.caller(row, prints) for row, prints in self.with_prints(rows)]

    def with_prints(self, rows: Sequence[RowMapping]) -> Iterator[tuple[RowMapping, list[RowMapping]]]:
        """The rows of callers, each with the rows of its voiceprints."""
        statement = sql.PRINTS_OF_EACH if self._has_arrays else sql.PRINTS_OF
        for chunk in chunks(rows, CHUNK):
            prints = defaultdict(list)
            asked = {"ids": [row["caller_id"] for row in chunk]}
            for row in self.connection.execute(statement, asked).mappings():
                prints[row["caller_id"]].append(row)
            for row in chunk:
                yield row, prints[row["caller_id"]]

    def owners(self, ids: Iterable[int]) -> dict[int, str]:
        """Voiceprint id to caller id; unknown ids are left out."""
        wanted = sorted({id_ for id_ in ids if 0 < id_ <= _MAX_ID})
        return {
            id_: caller_id
            for chunk in chunks(wanted, CHUNK)
            for id_, caller_id in self.connection.execute(sql.OWNERS, {"ids": chunk})
        }

    def count(self) -> int:
        """Number of voiceprints."""
        return self.connection.execute(select(func.count()).select_from(voiceprints)).scalar_one()

    def spaces(self) -> dict[str, int]:
        """Number of voiceprints of each space."""
        counted = select(voiceprints.c.encoder, func.count()).group_by(voiceprints.c.encoder)
        return {str(space): count for space, count in self.connection.execute(counted)}

    def coverage(self) -> dict[str, SpaceCounts]:
        """As `Storage.coverage`."""
        found = self.connection.execute(sql.COVERAGE).all()
        only = {space: callers for space, _, callers, _ in found}
        if len(found) > 1:
            rows = self.connection.execute(sql.CALLERS_OF_ONE_SPACE).all()
            only = {row[0]: row[1] for row in rows}
        return {
            str(space): SpaceCounts(int(length or 0) // 4, prints, callers, only.get(space, 0))
            for space, prints, callers, length in found
        }

    def count_callers(self) -> int:
        """Number of callers."""
        return self.connection.execute(select(func.count()).select_from(callers)).scalar_one()

    def count_enrolled(self) -> int:
        """Number of callers with a voiceprint."""
        return self.connection.execute(sql.COUNT_ENROLLED).scalar_one()

    def scan(
        self, space: str, after: int, size: int
    ) -> tuple[tuple[NDArray[np.int64], NDArray[np.float32]], int | None]:
        """Ids int64[n] and embeddings float32[n, dimension] of at most `size` voiceprints after the id
        `after`, without those of forgotten callers, and the id to go on after; None at the end."""
        given = {"space": space, "after": after, "size": min(size, _MAX_ID)}
        rows = self._rows(sql.SCAN, sql.SEALED_SCAN, given)
        last = int(rows[-1][0]) if len(rows) == size else None
        return self.rows.arrays(self.rows.opened(rows, space), space), last

    def _rows(self, plain: Select[Any], sealed: Select[Any], given: Row) -> Sequence[Any]:
        """The rows of one of two statements: the second one reads the data keys too."""
        statement = plain if self.rows.seals.sealing is None else sealed
        return self.connection.execute(statement, given).all()

    def position(self) -> Position:
        """As `Storage.position`."""
        return self._last_commit(sql.LAST_COMMIT, {})

    def _last_commit(self, statement: Select[tuple[int, str]], given: Row) -> Position:
        row: Sequence[Any] | None = self.connection.execute(statement, given).first()
        if row is None:
            return START
        if type(row[0]) is not int or not isinstance(row[1], str):
            self.rows.corrupt("table commits", "has no number and token in a row")
        return Position(*row)

    def changes(self, since: Position, space: str) -> Changes | None:
        """As `Storage.changes`."""
        last = self.position()
        if since == last:
            return Changes(last, np.empty(0, dtype=np.int64), *self.rows.arrays([], space))
        if since == START:
            is_remembered = self.header()["feed_floor"] == 0
        else:
            is_remembered = (
                self.connection.execute(sql.COMMIT_AT, {"at": since.revision}).scalar() == since.token
            )
        if not is_remembered:
            return None
        given: Row = {"space": space, "since": since.revision}
        upto = last
        beyond = self.connection.execute(sql.REVISION_BEYOND_PAGE, given | {"size": FEED_PAGE}).scalar()
        if beyond is not None:
            first = self.connection.execute(sql.FIRST_CHANGED, given).scalar_one()
            upto = self._last_commit(sql.LAST_COMMIT_UPTO, {"upto": max(beyond - 1, first)})
        given["upto"] = upto.revision
        removed = self.connection.execute(
            sql.REMOVED, {name: given[name] for name in ("since", "upto")}
        ).scalars()
        rows = self._rows(sql.CHANGED, sql.SEALED_CHANGED, given)
        ids, embeddings = self.rows.arrays(self.rows.opened(rows, space), space)
        groups: dict[int, tuple[str, ...]] = {}
        for name, id_ in self.connection.execute(sql.GROUPS_OF_CHANGED, given):
            groups[id_] = (*groups.get(id_, ()), str(name))
        gone = np.array(removed.all(), dtype=np.int64)
        return Changes(upto, gone, ids, embeddings, more=upto != last, groups=groups)

    def group_ids(self, space: str) -> dict[str, NDArray[np.int64]]:
        """As `Storage.group_ids`."""
        rows = self.connection.execute(sql.GROUPS, {"space": space})
        return ids_by_group((str(name), id_) for name, id_ in rows)

    def deletions(self) -> list[Deletion]:
        """As `Storage.deletions`."""
        return [Deletion(*row) for row in self.connection.execute(select(deletions))]

    def deleted_since(self, time: str) -> dict[tuple[str, str], str]:
        """The noted deletions of this time or later."""
        rows = self.connection.execute(sql.DELETED_SINCE, {"time": time})
        return {(key, digest): deleted_at for key, digest, deleted_at in rows}

    def noted(self, given: Iterable[Deletion]) -> dict[tuple[str, str], str]:
        """The times of those of the deletions that are noted already."""
        digests: dict[str, list[str]] = {}
        for deletion in given:
            digests.setdefault(deletion.key, []).append(deletion.digest)
        return {
            (row["key"], row["digest"]): row["deleted_at"]
            for key, given_digests in digests.items()
            for chunk in chunks(given_digests, CHUNK)
            for row in self.connection.execute(
                sql.DELETIONS_BY_DIGEST, {"of_key": key, "digests": chunk}
            ).mappings()
        }

    def has_prints(self, space: str, besides: int) -> bool:
        """Whether this space has more than `besides` voiceprints."""
        asked = {"space": space, "size": besides + 1}
        return len(self.connection.execute(sql.IDS_OF_SPACE, asked).all()) > besides


def readable(records: Iterable[CallerRecord]) -> Iterator[CallerRecord]:
    """The records whose data key was not forgotten."""
    return (record for record in records if not record.is_forgotten)


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items in lists of at most `size`."""
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk
