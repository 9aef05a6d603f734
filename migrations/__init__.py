"""The SQL schema of the record store and its history, by Alembic.

Opening a store upgrades its database; `voiceprint db` shows and does the same. A developer writes the next
revision as a new file in versions/, and tries `upgrade` on a scratch database.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from voiceprint.errors import StorageError

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection

__all__ = ["HEAD", "Revision", "current", "history", "upgrade"]

# The newest revision of versions/, as a constant: a database at head opens without importing Alembic.
HEAD = "0008"

# The database of OpusAgent has this table, and no alembic_version.
_FIRST = "0001"
_VERSION_TABLE = "alembic_version"
_OLD_TABLE = "voiceprints"
_OLD_COLUMNS = {"caller_id", "embedding", "metadata", "created_at", "last_seen"}
_TABLES = {
    "audit_log",
    "store",
    "callers",
    "voiceprints",
    "augmented_voiceprints",
    "simulated_voiceprints",
    "caller_groups",
    "tombstones",
    "commits",
    "deletions",
}


class Revision(NamedTuple):
    """One step of the schema's history."""

    revision: str
    message: str


def current(connection: Connection) -> str | None:
    """The schema revision of the database; None without a schema."""
    from sqlalchemy import column, inspect, select, table

    tables = set(inspect(connection).get_table_names())
    if _VERSION_TABLE in tables:
        version: str | None = connection.scalar(
            select(column("version_num")).select_from(table(_VERSION_TABLE))
        )
        if version is not None:
            return version
    if _OLD_TABLE in tables:
        columns = {found["name"] for found in inspect(connection).get_columns(_OLD_TABLE)}
        if columns >= _OLD_COLUMNS and not tables & (_TABLES - {_OLD_TABLE}):
            return _FIRST
    if tables & _TABLES:
        taken = ", ".join(sorted(tables & _TABLES))
        raise StorageError(
            f"{_name(connection)} is the database of another program: it has tables of its own with the "
            f"names {taken}. Use another database. Nothing was changed."
        )
    return None


def is_ours(connection: Connection) -> bool:
    """Whether the database has no tables, or those of a store, also of OpusAgent or a newer version."""
    from sqlalchemy import inspect

    tables = set(inspect(connection).get_table_names())
    if not tables - {_VERSION_TABLE}:
        return True
    if _VERSION_TABLE in tables:
        return {"store", "callers", "voiceprints"} <= tables or current(connection) == _FIRST
    return current(connection) == _FIRST


def upgrade(connection: Connection) -> tuple[str | None, str]:
    """Bring the schema to `HEAD` in the transaction of `connection`; returns the revisions before and after.

    Raises `StorageCorruptError` for an old record that cannot be adopted, and `StorageError` for a database
    that is newer than this library; the caller then rolls back.
    """
    before = current(connection)
    if before == HEAD:
        return before, HEAD
    from alembic import command
    from alembic.script import ScriptDirectory

    config = _config(connection)
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if before is not None and before not in known:
        raise StorageError(
            f"{_name(connection)} has the schema revision {before!r}, and this version of the library reads "
            f"up to {HEAD!r}: it was written by a newer version. Update the library. Nothing was changed."
        )
    if before == _FIRST:
        command.stamp(config, _FIRST)
    command.upgrade(config, HEAD)
    return before, HEAD


def history() -> list[Revision]:
    """All revisions, the oldest first."""
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory.from_config(_config()).walk_revisions()
    return [Revision(script.revision, script.doc) for script in scripts][::-1]


def _config(connection: Connection | None = None) -> Config:
    from alembic.config import Config

    config = Config()
    # A percent sign starts an interpolation in what Alembic takes for an .ini file.
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _name(connection: Connection) -> str:
    name: str = connection.get_execution_options().get("voiceprint_name", "The database")
    return name
