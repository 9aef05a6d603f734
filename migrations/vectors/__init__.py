"""The SQL schema of indexes in PostgreSQL (pgvector), by Alembic, with a history of its own.

An index may be in another database than the records, so its revisions are not theirs.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from voiceprint.errors import StorageError

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["HEAD", "VERSION_TABLE", "upgrade"]

HEAD = "0002"
"""The newest revision, as a constant: a schema at head opens without importing Alembic."""

VERSION_TABLE = "vector_index_version"

# Alembic keeps what it works on in global variables. Not held while a thread waits for another process.
_running = threading.Lock()


def upgrade(connection: Connection) -> None:
    """Bring the schema to `HEAD` in the transaction of `connection`.

    Raises `StorageError` for a schema that is newer than this library.
    """
    from sqlalchemy import column, inspect, select, table, text

    # Of processes that open at the same moment, one creates the tables.
    connection.execute(text("SELECT pg_advisory_xact_lock(hashtext(:name))"), {"name": VERSION_TABLE})
    before = None
    if inspect(connection).has_table(VERSION_TABLE):
        before = connection.scalar(select(column("version_num")).select_from(table(VERSION_TABLE)))
    if before == HEAD:
        return
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    # A percent sign starts an interpolation in what Alembic takes for an .ini file.
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if before is not None and before not in known:
        raise StorageError(
            f"The vector index has the schema revision {before!r}, and this version of the library reads up "
            f"to {HEAD!r}: it was written by a newer version. Update the library. Nothing was changed."
        )
    with _running:
        command.upgrade(config, HEAD)
