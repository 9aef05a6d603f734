"""Finds callers by their metadata in a database, and keeps indexes of metadata keys for it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

from sqlalchemy import ColumnElement, Connection, func, select

from voiceprint.errors import InvalidArgumentError
from voiceprint.storage.metadata_search import MetadataFilter
from voiceprint.storage.records import CallerRecord
from voiceprint.storage.sql import statements as sql
from voiceprint.storage.sql.reader import readable
from voiceprint.storage.sql.tables import callers
from voiceprint.validation import shown

if TYPE_CHECKING:
    from voiceprint.storage.sql.dialect import Dialect
    from voiceprint.storage.sql.reader import Reader

__all__ = ["add_index", "check_key", "drop_index", "find", "indexed_keys"]

# Rows of one statement, after the first: nearly all of its rows are accepted, as many as are asked for. More
# save no time; each is some hundred bytes.
_PAGE = 5_000
# Callers counted of each indexed key, to read the index of the rarest value: more tell apart two common ones.
_COMPARED = 1_000
_PREFIX = "ix_callers_metadata:"
# An identifier of PostgreSQL has 63 bytes, and the name of an index is the prefix and the key.
_KEY_BYTES = 40
# The other characters mean something in a string or a path of SQL.
_KEY = re.compile(r"[\w .:@/+-]+")


def find(
    reader: Reader, dialect: Dialect, wanted: MetadataFilter, after: str, size: int
) -> list[CallerRecord]:
    """At most `size` callers after the id `after`, in the order of ids."""
    # Encrypted metadata is opened here, and not in the database.
    scalars = {} if reader.rows.seals.sealing is not None else wanted.scalars()
    scalars = {key: value for key, value in scalars.items() if _is_simple(key)}
    dialect.prepare_search(reader.connection)
    indexed = [key for key in indexed_keys(reader.connection, dialect) if key in scalars]
    by_index = next(iter(indexed), None)
    if len(indexed) > 1:
        by_index = min(indexed, key=lambda key: _matches(reader, dialect, key, scalars[key]))
    found: set[str] = set()
    for conditions in dialect.metadata_conditions(scalars, by_index):
        candidates = _candidates(reader, conditions, after, min(size, _PAGE))
        accepted = (record for record in candidates if wanted.accepts(record.metadata))
        found.update(record.caller_id for record in islice(accepted, size))
    names = sorted(found)[:size]
    records = reader.callers(names)
    return [records[name] for name in names]


def _matches(reader: Reader, dialect: Dialect, key: str, value: str | int | float | bool) -> int:
    """The number of callers with this value of an indexed key, up to `_COMPARED`."""
    (conditions, *_) = dialect.metadata_conditions({key: value}, key)
    some = select(callers.c.caller_id).where(*conditions).limit(_COMPARED).subquery()
    return reader.connection.execute(select(func.count()).select_from(some)).scalar_one()


def _candidates(
    reader: Reader, conditions: list[ColumnElement[bool]], after: str, page_size: int
) -> Iterator[CallerRecord]:
    """The callers without their voiceprints."""
    statement = sql.PAGE.where(*conditions)
    while True:
        page = reader.connection.execute(statement, {"after": after, "size": page_size}).mappings().all()
        with reader.rows.seals.prefetched(row["data_key"] for row in page):
            records = [reader.rows.caller(row, []) for row in page]
        yield from readable(records)
        if len(page) < page_size:
            return
        after, page_size = page[-1]["caller_id"], _PAGE


def _is_simple(key: str) -> bool:
    return _KEY.fullmatch(key) is not None and len(key.encode()) <= _KEY_BYTES


def check_key(key: object) -> str:
    """A metadata key that can have an index."""
    if not isinstance(key, str) or not _is_simple(key):
        raise InvalidArgumentError(
            f"The metadata key {shown(key)} can have no index: 1 to {_KEY_BYTES} bytes of letters, digits, "
            "spaces and _ . : @ / + - can."
        )
    return key


def indexed_keys(connection: Connection, dialect: Dialect) -> tuple[str, ...]:
    """The keys that have an index, sorted."""
    names = connection.exec_driver_sql(dialect.index_names).scalars()
    return tuple(sorted(name.removeprefix(_PREFIX) for name in names if name.startswith(_PREFIX)))


def add_index(connection: Connection, dialect: Dialect, key: str) -> None:
    """Index a key, unless it has an index."""
    # By caller id too, so that a page is read in its order.
    columns = f"{dialect.metadata_value(key)}, caller_id"
    connection.exec_driver_sql(f'CREATE INDEX IF NOT EXISTS "{_PREFIX}{key}" ON callers ({columns})')
    dialect.indexed(connection)


def drop_index(connection: Connection, key: str) -> None:
    """Remove the index of a key, if it has one."""
    connection.exec_driver_sql(f'DROP INDEX IF EXISTS "{_PREFIX}{key}"')
