"""`AuditTable`: the audit log as a table of an SQL store, a row for each line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from voiceprint.privacy.audit.chain import Head, Line, chained, continued
from voiceprint.privacy.audit.event import Event

if TYPE_CHECKING:
    from voiceprint.storage.base import LineTable


class AuditTable:
    """Appends events to the audit table of a store, and reads it. For one thread at a time.

    Lines are appended in a transaction, which is durable as every change of the store. The errors of the
    store pass through.
    """

    def __init__(self, table: LineTable) -> None:
        self._table = table
        self.place = f"the audit table of {table.location}"
        self._head = Head()

    def append(self, events: Sequence[Event]) -> None:
        """Append the lines of events; all, or none."""
        head = Head()

        def make(last: tuple[int, bytes] | None) -> list[tuple[int, bytes]]:
            nonlocal head
            head = continued(_head_of(last), self._head, self.place)
            rows = []
            for event in events:
                line, head = chained(event, head)
                rows.append((head.seq, line[:-1]))
            return rows

        self._table.append(make)
        self._head = head

    def reset(self) -> None:
        """Called in a forked child: nothing to do, as the connections belong to the store's own registry."""

    def head(self) -> Head:
        """The last line of the log."""
        return _head_of(next(self._table.rows(newest_first=True), None))

    def lines(self) -> Iterator[tuple[str, bytes]]:
        """All lines, with a line break as in a file, and the place of each."""
        for number, line in self._table.rows():
            yield f"row {number}", line + b"\n"

    def backward(self) -> Iterator[bytes]:
        """All lines, the newest first."""
        for _, line in self._table.rows(newest_first=True):
            yield line


def _head_of(last: tuple[int, bytes] | None) -> Head:
    """The head of a table with this last row. After a changed row the chain goes on with a broken link."""
    if last is None:
        return Head()
    line = Line.parse(last[1])
    return Head(last[0]) if line is None else line.head
