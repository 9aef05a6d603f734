"""The tables of a PostgreSQL store as tables partitioned by hash.

The rows are copied into new tables, which take the names of the old ones at the end of the transaction. All
is read from the server's catalog, not from tables.py, so that a column or index of any revision is kept.
"""

from __future__ import annotations

import time
from collections import defaultdict
from typing import Any

import psycopg
from psycopg import sql
from psycopg.errors import DeadlockDetected, LockNotAvailable

from voiceprint.errors import StorageError, StorageUnavailableError

__all__ = ["partition", "partition_count"]

# Embeddings for telephone lines have no caller id, and are found by the id of their voiceprint.
_KEYS = {"callers": "caller_id", "voiceprints": "caller_id", "augmented_voiceprints": "voiceprint_id"}
# A unique constraint of a partitioned table must contain the caller id. The id alone stays unique all the
# same: the store counts ids, and writers take turns. It comes first, for look-ups by id.
_PRINTS_KEY = "PRIMARY KEY (id, caller_id)"
_GROUPS_CALLER, _PRINTS_CALLER = "fk_caller_groups_caller_id", "fk_voiceprints_caller_id"
_PRINTS_SLOT = "uq_voiceprints_caller_id_slot"
_DELETE_AUGMENTED = "delete_augmented_voiceprint"

# Bytes of rows read at once: this process holds about four times as many, as text and as its parts.
_READ_BYTES = 16 << 20
# Seconds for which a try to lock the tables may hold up readers, and for which it is tried again.
_LOCK_S, _LOCKED_WITHIN_S = 2.0, 120.0

_OWNERS = """
    SELECT DISTINCT pg_get_userbyid(relowner), pg_has_role(relowner, 'MEMBER'),
           has_schema_privilege(relowner, relnamespace, 'CREATE'), relnamespace::regnamespace::text
    FROM pg_class WHERE oid = ANY (%s::regclass[]) ORDER BY 1"""
# Objects that the new tables would lack, or that would keep DROP TABLE from the old ones.
_IN_THE_WAY = """
    WITH ours AS (SELECT unnest(%(tables)s::regclass[])::oid AS oid)
    SELECT format('trigger %%I', tgname) FROM pg_trigger JOIN ours ON ours.oid = tgrelid
        WHERE NOT tgisinternal AND tgname <> %(trigger)s
    UNION SELECT format('policy %%I', polname) FROM pg_policy JOIN ours ON ours.oid = polrelid
    UNION SELECT format('rule %%I', rulename) FROM pg_rewrite JOIN ours ON ours.oid = ev_class
    UNION SELECT format('publication %%I', pubname) FROM pg_publication_rel
        JOIN ours ON ours.oid = prrelid JOIN pg_publication ON pg_publication.oid = prpubid
    UNION SELECT format('rights on the column %%I', attname) FROM pg_attribute
        JOIN ours ON ours.oid = attrelid WHERE attacl IS NOT NULL
    UNION SELECT format('foreign key %%I', conname) FROM pg_constraint JOIN ours ON ours.oid = confrelid
        WHERE conparentid = 0 AND conrelid NOT IN (SELECT oid FROM ours) AND conname <> %(key)s
    UNION SELECT format('unique index %%s', indexrelid::regclass) FROM pg_index
        JOIN ours ON ours.oid = indrelid
        WHERE indisunique AND NOT indisprimary AND indexrelid <> %(unique)s::regclass
    UNION SELECT format('view %%s', ev_class::regclass) FROM pg_depend
        JOIN ours ON ours.oid = refobjid JOIN pg_rewrite ON pg_rewrite.oid = objid
        WHERE classid = 'pg_rewrite'::regclass AND ev_class NOT IN (SELECT oid FROM ours)
    ORDER BY 1"""
# For each index its name, the kind of its constraint, and its definition without the names.
_INDEXES = """
    SELECT index.relname, contype::text, CASE
        WHEN contype IS NOT NULL THEN pg_get_constraintdef(pg_constraint.oid)
        ELSE substr(pg_get_indexdef(index.oid), 1 + length(format(
            'CREATE INDEX %%I ON %%s%%I.%%I ', index.relname, CASE of.relkind WHEN 'p' THEN 'ONLY ' END,
            nspname, of.relname))) END
    FROM pg_index JOIN pg_class index ON index.oid = indexrelid JOIN pg_class of ON of.oid = indrelid
        JOIN pg_namespace ON pg_namespace.oid = of.relnamespace
        LEFT JOIN pg_constraint ON conindid = indexrelid AND conrelid = indrelid AND contype <> 'f'
    WHERE indrelid = %s::regclass ORDER BY contype, index.relname"""
_GRANTS = """
    SELECT privilege_type, CASE WHEN grantee <> 0 THEN pg_get_userbyid(grantee) END, is_grantable
    FROM pg_class, aclexplode(relacl) WHERE pg_class.oid = %s::regclass AND grantee <> relowner"""
# In place of the foreign key, which would need a unique voiceprint id: a voiceprint takes its augmented
# embedding with it, whoever deletes it, and in a cascade from its caller too.
_ON_DELETED_PRINT = """
    CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        EXECUTE format('DELETE FROM %I.augmented_voiceprints WHERE voiceprint_id = $1', TG_TABLE_SCHEMA)
        USING OLD.id;
        RETURN NULL;
    END $$;
    CREATE TRIGGER {function} AFTER DELETE ON voiceprints FOR EACH ROW EXECUTE FUNCTION {function}()"""
# The tables that hold the rows, their blocks, and their bytes with the large values, which lie elsewhere.
_LEAVES = """
    SELECT oid::regclass::text, pg_relation_size(oid) / current_setting('block_size')::int, pg_table_size(oid)
    FROM pg_class WHERE relkind = 'r' AND (oid = %(table)s::regclass
        OR oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = %(table)s::regclass))"""


def partition_count(connection: psycopg.Connection[Any]) -> int:
    """Number of partitions of each table; 0 for tables without."""
    counted = connection.execute("SELECT count(*) FROM pg_inherits WHERE inhparent = to_regclass('callers')")
    return int(counted.fetchall()[0][0])


def partition(connection: psycopg.Connection[Any], place: str, partitions: int) -> int:
    """Partition the tables in the transaction of `connection`; returns the former number of partitions.

    connection: has the turn of a writer. place: name of the store, for messages.

    Readers go on until the new tables take their names. These hold frozen rows: a reader whose snapshot is
    older would otherwise find them empty.

    Raises `StorageUnavailableError` for a user without the rights, and `StorageError` where an object that
    is not the library's depends on the tables.
    """
    before = partition_count(connection)
    if before == partitions:
        return before
    owner = _checked_owner(connection, place)
    connection.execute("SET LOCAL statement_timeout = 0")
    # The new tables are the owner's too, if a superuser makes them.
    connection.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(owner)))
    connection.execute(_lock("EXCLUSIVE"))
    names: dict[str, str] = {}
    for table, key in _KEYS.items():
        _create(connection, table, key, partitions)
        _copy_rows(connection, table, key, partitions)
        _check_copy(connection, place, table)
        names |= _create_indexes(connection, table, len(names))
    for table, name in (("voiceprints_new", _PRINTS_CALLER), ("caller_groups", f"{_GROUPS_CALLER}_new")):
        refers = "FOREIGN KEY (caller_id) REFERENCES callers_new ON DELETE CASCADE"
        _run(connection, "ALTER TABLE {} ADD CONSTRAINT {} ", table, name, rest=refers)
    for table in _KEYS:
        # The server analyzes partitions by itself, and a partitioned table as a whole never.
        _run(connection, "ANALYZE {}", f"{table}_new")
    _lock_out_readers(connection)
    _swap(connection, names)
    return before


def _checked_owner(connection: psycopg.Connection[Any], place: str) -> str:
    """The owner of the tables."""
    owners = connection.execute(_OWNERS, [[*_KEYS, "caller_groups"]]).fetchall()
    named = ", ".join(owner for owner, *_ in owners)
    cannot = f"The tables of {place} cannot be partitioned"
    if len(owners) > 1:
        raise StorageError(
            f"{cannot}: they belong to several users ({named}). Give them one owner. Nothing was changed."
        )
    owner, is_member, may_create, schema = owners[0]
    if not is_member:
        raise StorageUnavailableError(
            f"{cannot} by this user: they belong to {named}. Give --store the URL of that user, or of a "
            "superuser. Nothing was changed."
        )
    if not may_create:
        raise StorageUnavailableError(
            f"{cannot}: their owner {named} may not create tables in the schema. Run: GRANT CREATE ON "
            f"SCHEMA {schema} TO {named}. Nothing was changed."
        )
    given = {"tables": [*_KEYS], "trigger": _DELETE_AUGMENTED, "key": _GROUPS_CALLER, "unique": _PRINTS_SLOT}
    found = [name for (name,) in connection.execute(_IN_THE_WAY, given)]
    if found:
        raise StorageError(
            f"{cannot} while other objects depend on them: {', '.join(found)}. Drop these, and create them "
            "again afterwards. Nothing was changed."
        )
    return str(owner)


def _create(connection: psycopg.Connection[Any], table: str, key: str, partitions: int) -> None:
    """Create the new table and its partitions, empty and without indexes."""
    new = f"{table}_new"
    _run(
        connection,
        "CREATE TABLE {} (LIKE {} INCLUDING ALL EXCLUDING INDEXES) PARTITION BY HASH ({})",
        new,
        table,
        key,
    )
    leaves = [_leaf(table, partitions, number) for number in range(partitions)]
    for number, leaf in enumerate(leaves):
        values = f"FOR VALUES WITH (MODULUS {partitions:d}, REMAINDER {number:d})"
        _run(connection, "CREATE TABLE {} PARTITION OF {} " + values, leaf, new)
    for right, grantee, is_grantable in connection.execute(_GRANTS, [table]).fetchall():
        grant = sql.SQL("GRANT {} ON {} TO {}{}").format(
            sql.SQL(right),
            sql.SQL(", ").join(map(sql.Identifier, [new, *leaves])),  # a dump reads the partitions
            sql.SQL("PUBLIC") if grantee is None else sql.Identifier(grantee),
            sql.SQL(" WITH GRANT OPTION" if is_grantable else ""),
        )
        connection.execute(grant)


def _leaf(table: str, partitions: int, number: int) -> str:
    # Its count too: it lies beside the partitions of another count until these are dropped.
    return f"{table}_{number:0{len(str(partitions - 1))}d}_of_{partitions}"


def _copy_rows(connection: psycopg.Connection[Any], table: str, key: str, partitions: int) -> None:
    """Copy the rows into the partitions, frozen.

    Only COPY freezes rows, and it takes one partition at a time, so the rows pass through this process. Each
    message of COPY is a row in the server's text form, behind the number of its partition; it is not decoded.
    """
    reading = sql.SQL(
        "COPY (SELECT number, source.* FROM {source} source CROSS JOIN LATERAL "
        "(SELECT number FROM generate_series(0, {last}) number "
        "WHERE satisfies_hash_partition({new}::regclass, {count}, number, source.{key}) LIMIT 1) found "
        "WHERE source.ctid >= {start}::tid AND source.ctid < {end}::tid) TO STDOUT"
    )
    with connection.cursor() as cursor:
        for source, blocks, size in cursor.execute(_LEAVES, {"table": table}).fetchall():
            step = max(_READ_BYTES * blocks // size, 1) if size else 1
            for start in range(0, blocks, step):
                rows: dict[int, list[bytes]] = defaultdict(list)
                statement = reading.format(
                    source=sql.SQL(source),
                    new=sql.Literal(f"{table}_new"),
                    count=sql.Literal(partitions),
                    last=sql.Literal(partitions - 1),
                    key=sql.Identifier(key),
                    start=sql.Literal(f"({start},0)"),
                    end=sql.Literal(f"({start + step},0)"),
                )
                with cursor.copy(statement) as copy:
                    for row in copy:
                        part, _, values = bytes(row).partition(b"\t")
                        rows[int(part)].append(values)
                for number, lines in rows.items():
                    leaf = sql.Identifier(_leaf(table, partitions, number))
                    with cursor.copy(sql.SQL("COPY {} FROM STDIN (FREEZE)").format(leaf)) as copy:
                        copy.write(b"".join(lines))


def _check_copy(connection: psycopg.Connection[Any], place: str, table: str) -> None:
    """Raise `StorageError` if the new table has another number of rows than the old one."""
    counting = sql.SQL("SELECT (SELECT count(*) FROM {}), (SELECT count(*) FROM {})")
    names = (sql.Identifier(table), sql.Identifier(f"{table}_new"))
    ((rows, copied),) = connection.execute(counting.format(*names)).fetchall()
    if rows != copied:
        raise StorageError(
            f"{place} was not partitioned: of {rows} rows of the table {table}, {copied} arrived. "
            "Nothing was changed."
        )


def _create_indexes(connection: psycopg.Connection[Any], table: str, first: int) -> dict[str, str]:
    """Create the indexes and unique constraints of the new table; returns the final name of each.

    first: number in the name of the first.
    """
    names: dict[str, str] = {}
    for name, kind, definition in connection.execute(_INDEXES, [table]).fetchall():
        new = f"new_index_{first + len(names)}"
        names[new] = name
        if kind is None:
            _run(connection, "CREATE INDEX {} ON {} ", new, f"{table}_new", rest=definition)
        else:
            if table == "voiceprints" and kind == "p":
                definition = _PRINTS_KEY
            _run(connection, "ALTER TABLE {} ADD CONSTRAINT {} ", f"{table}_new", new, rest=definition)
    return names


def _lock_out_readers(connection: psycopg.Connection[Any]) -> None:
    """Lock out the readers of the tables. A reader that would wait for this transaction, and this transaction
    for the reader, goes first."""
    deadline = time.monotonic() + _LOCKED_WITHIN_S
    while True:
        try:
            with connection.transaction():  # a savepoint
                connection.execute(f"SET LOCAL lock_timeout = {_LOCK_S * 1000:.0f}")
                connection.execute(_lock("ACCESS EXCLUSIVE"))
        except (LockNotAvailable, DeadlockDetected):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


def _swap(connection: psycopg.Connection[Any], names: dict[str, str]) -> None:
    """Drop the old tables, and give the new ones their names."""
    _run(connection, "ALTER TABLE caller_groups DROP CONSTRAINT {}", _GROUPS_CALLER)
    renaming = "ALTER TABLE caller_groups RENAME CONSTRAINT {} TO {}"
    _run(connection, renaming, f"{_GROUPS_CALLER}_new", _GROUPS_CALLER)
    connection.execute("DROP TABLE callers, voiceprints, augmented_voiceprints")
    for table in _KEYS:
        _run(connection, "ALTER TABLE {} RENAME TO {}", f"{table}_new", table)
    for new, name in names.items():
        _run(connection, "ALTER INDEX {} RENAME TO {}", new, name)
    function = sql.Identifier(_DELETE_AUGMENTED)
    connection.execute(sql.SQL(_ON_DELETED_PRINT).format(function=function))


def _lock(mode: str) -> str:
    return f"LOCK TABLE callers, voiceprints, augmented_voiceprints, caller_groups IN {mode} MODE"


def _run(connection: psycopg.Connection[Any], statement: str, *names: str, rest: str = "") -> None:
    """Run a statement with names of tables, columns and indexes; rest: SQL behind it, as it is."""
    connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)) + sql.SQL(rest))
