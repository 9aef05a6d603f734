"""`SQLLineTable`: the lines of the audit log in a table beside the records."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from sqlalchemy import Connection, Row, Select, insert, select

from voiceprint._lazy import cached_property
from voiceprint.storage.base import LineTable
from voiceprint.storage.sql.database import Database
from voiceprint.storage.sql.dialect import Dialect
from voiceprint.storage.sql.tables import audit_log

_PAGE: Final = 1_000  # lines read at once: half a MB


class SQLLineTable(LineTable):
    """The table of the database of a dialect, with connections of its own."""

    def __init__(self, dialect: Dialect) -> None:
        self.location = dialect.location
        self._dialect = dialect

    @cached_property
    def _database(self) -> Database:
        # At the first use: every recognizer of a process makes a table, and one of them is written to.
        database = Database(self._dialect)
        weakref.finalize(self, database.release)  # readers make a table and do not close it
        return database

    def append(self, make: Callable[[tuple[int, bytes] | None], list[tuple[int, bytes]]]) -> None:
        def work(connection: Connection) -> None:
            last = connection.execute(
                select(audit_log).order_by(audit_log.c.seq.desc()).limit(1)
            ).one_or_none()
            rows = make(None if last is None else (last.seq, str(last.line).encode()))
            if rows:
                connection.execute(
                    insert(audit_log), [{"seq": seq, "line": line.decode()} for seq, line in rows]
                )

        # One writer of the store at a time, so that no other process appends after the same line.
        self._database.write(lambda writer: work(writer.connection))

    def _page(self, query: Select[tuple[int, str]]) -> Sequence[Row[tuple[int, str]]]:
        return self._database.read(lambda reader: reader.connection.execute(query).all(), [])

    def rows(self, *, newest_first: bool = False) -> Iterator[tuple[int, bytes]]:
        after: int | None = None
        number = audit_log.c.seq
        while True:
            query = select(audit_log).order_by(number.desc() if newest_first else number).limit(_PAGE)
            if after is not None:
                query = query.where(number < after if newest_first else number > after)
            page = self._page(query)
            for row in page:
                yield row.seq, str(row.line).encode()
            if len(page) < _PAGE:
                return
            after = page[-1].seq
