"""Tables of a PostgreSQL store that are partitioned by hash. They are made while nobody is enrolled."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, Index, MetaData, UniqueConstraint, text

from voiceprint.errors import StorageError
from voiceprint.storage.sql.tables import augmented, caller_groups, callers, metadata, voiceprints

__all__ = ["partition", "partition_count"]

# Not all by the caller's id: the id of a voiceprint, to which other tables refer, is unique only in a table
# that is partitioned by it.
_KEYS: Final = {callers: "caller_id", voiceprints: "id", augmented: "voiceprint_id"}
_TABLES: Final = (*_KEYS, caller_groups)

_LOCK: Final = "LOCK TABLE callers, voiceprints, augmented_voiceprints, caller_groups"
_IN_THE_WAY: Final = """
    SELECT pg_get_userbyid(relowner) AS owner, relowner = current_user::regrole AS is_mine,
        relnamespace = current_schema()::regnamespace AS is_here, relrowsecurity AS hides_rows
    FROM pg_class WHERE oid IN ('callers'::regclass, 'voiceprints'::regclass,
        'augmented_voiceprints'::regclass, 'caller_groups'::regclass)
    ORDER BY relowner = current_user::regrole"""
_IS_FILLED: Final = """
    SELECT EXISTS (SELECT FROM callers) OR EXISTS (SELECT FROM voiceprints)
        OR EXISTS (SELECT FROM augmented_voiceprints)"""


def partition_count(connection: Connection) -> int:
    """Number of partitions of each table; 0 for tables without."""
    counted = "SELECT count(*) FROM pg_inherits WHERE inhparent = to_regclass('callers')"
    return int(connection.execute(text(counted)).scalar_one())


def partition(connection: Connection, place: str, partitions: int) -> int:
    """Replace the tables by empty ones of so many partitions; returns the former number of partitions.

    connection: has the turn of a writer. place: name of the store, for messages. Raises `StorageError` where
    the tables hold anything, or could not be made again as they are.
    """
    before = partition_count(connection)
    if before == partitions:
        return before
    connection.execute(text("SET LOCAL lock_timeout = '2s'"))  # behind the lock new readers wait
    connection.execute(text(_LOCK))
    _check_replaceable(connection, place)
    metadata.drop_all(connection, tables=_TABLES, checkfirst=False)
    made = _partitioned()
    made.create_all(connection, checkfirst=False)
    for table in _KEYS:
        for number in range(partitions):
            # Names of tables.py, so that nothing is to be quoted.
            connection.execute(
                text(
                    f"CREATE TABLE {table.name}_{number} PARTITION OF {table.name} "
                    f"FOR VALUES WITH (MODULUS {partitions:d}, REMAINDER {number:d})"
                )
            )
    return before


def _check_replaceable(connection: Connection, place: str) -> None:
    cannot = f"The tables of {place} cannot be partitioned: "
    for owner, is_mine, is_here, hides_rows in connection.execute(text(_IN_THE_WAY)):
        if not is_mine:
            raise StorageError(
                f"{cannot}they belong to {owner}. Use the URL of that user. Nothing was changed."
            )
        if not is_here:
            raise StorageError(
                f"{cannot}they are in another schema than new tables would be. Name theirs first in the "
                "search_path of the URL. Nothing was changed."
            )
        if hides_rows:
            raise StorageError(
                f"{cannot}they have row-level security, which new tables would not have. Disable it, and "
                "enable it again afterwards. Nothing was changed."
            )
    if connection.execute(text(_IS_FILLED)).scalar_one():
        raise StorageError(
            f"{cannot}callers are enrolled. Partition a new store, and move them there by `voiceprint copy`. "
            "Nothing was changed."
        )


def _partitioned() -> MetaData:
    """The definitions of the tables, partitioned."""
    made = MetaData()
    for table in _TABLES:
        copied = table.to_metadata(made)
        if table in _KEYS:
            copied.dialect_options["postgresql"]["partition_by"] = f"HASH ({_KEYS[table]})"
    prints = made.tables[voiceprints.name]
    # A unique constraint has to contain the key. Writers take turns, so that none is needed here.
    for unique in [one for one in prints.constraints if isinstance(one, UniqueConstraint)]:
        prints.constraints.remove(unique)
        Index(str(unique.name), *unique.columns)
    return made
