"""A store behind a real PgBouncer in transaction mode: each transaction may be on another connection."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from postgres_server import PATIENCE_S, QUICK, PostgresServer, lacking, pgvector_binaries, shared_server
from stores import state, voiceprint
from vectors import vectors

from voiceprint import StorageError, VoiceprintError
from voiceprint.index.pgvector import PgVectorIndex
from voiceprint.storage import SQLStorage
from voiceprint.storage.sql import postgresql

THREADS, ROUNDS = 8, 12
PORT = 6432  # a part of the name of the socket


@pytest.fixture
def pooler() -> Iterator[str]:
    """The URL of a new database of the shared server behind two connections of a PgBouncer."""
    server = shared_server()
    server.sql("CREATE DATABASE pooled")
    try:
        with behind_pgbouncer(server, "pooled") as url:
            yield url
    finally:
        server.sql("DROP DATABASE pooled WITH (FORCE)")


@contextmanager
def behind_pgbouncer(server: PostgresServer, database: str) -> Iterator[str]:
    """The URL of a database behind two connections of a PgBouncer."""
    program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        lacking("PgBouncer is not installed: it is needed to test the store behind it")
    folder = Path(tempfile.mkdtemp(prefix="vp-pb-"))
    settings = folder / "pgbouncer.ini"
    settings.write_text(
        f"[databases]\n* = host={server.folder} user=postgres\n"
        f"[pgbouncer]\nlisten_addr =\nlisten_port = {PORT}\nunix_socket_dir = {folder}\nauth_type = any\n"
        "pool_mode = transaction\ndefault_pool_size = 2\nmax_client_conn = 100\n"
    )
    account = server.account
    if account:  # it refuses to run as root
        for path in (folder, settings):
            os.chown(path, account["user"], account["group"])
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, str(settings)], stdout=log, stderr=log, cwd="/", **account)
    url = f"postgresql://postgres@{quote(str(folder), safe='')}:{PORT}/{database}"
    try:
        wait(url, folder / "log")
        yield url
    finally:
        process.terminate()
        process.wait(PATIENCE_S)
        shutil.rmtree(folder)


def wait(url: str, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            psycopg.connect(url).close()
        except psycopg.OperationalError:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        else:
            return


def use(storage: SQLStorage) -> list[VoiceprintError]:
    """Threads that write, read and search at once; the errors that they got."""
    errors: list[VoiceprintError] = []

    def run(me: int) -> None:
        try:
            for n in range(ROUNDS):
                name = f"{me}-{n}"
                saved = storage.save(voiceprint(name, 100 * me + n))
                assert storage.touch(name)
                assert saved.id is not None
                assert [caller.caller_id for caller in storage.callers_of([saved.id])] == [name]
                assert storage.changes(storage.position()) is not None
                if n % 2:
                    assert storage.delete(name) == 1
                assert (storage.get(name) is None) == bool(n % 2)
        except VoiceprintError as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(me,)) for me in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def test_many_threads_use_a_store_behind_pgbouncer_in_transaction_mode(pooler: str) -> None:
    with SQLStorage(pooler) as storage:
        storage.save_many(voiceprint(f"many {n}", n) for n in range(50))  # by COPY
        assert use(storage) == []
        assert len(state(storage)) == 50 + THREADS * ROUNDS // 2
        assert storage.check() == []


def test_with_prepared_statements_it_would_fail(pooler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql, "_is_pooled", lambda _: False)
    with SQLStorage(pooler) as storage:
        storage.create()
        assert any(isinstance(error, StorageError) for error in use(storage))


def test_a_server_without_a_pooler_prepares_statements() -> None:
    server: PostgresServer = shared_server()
    with psycopg.connect(server.url()) as connection:
        assert not postgresql._is_pooled(connection)


def test_an_index_in_postgresql_is_searched_and_changed_behind_a_pooler() -> None:
    server = PostgresServer(*QUICK, programs=pgvector_binaries())
    try:
        with behind_pgbouncer(server, "postgres") as url:
            index = PgVectorIndex(url, dimension=8)
            assert len(index) == 0

            def work(number: int) -> None:
                for turn in range(ROUNDS):
                    id_ = number * ROUNDS + turn
                    index.add([id_], vectors(id_, 1))
                    assert index.search(vectors(id_, 1), 1)[1].tolist() == [[id_]]

            with ThreadPoolExecutor(THREADS) as pool:
                [*pool.map(work, range(THREADS))]
            assert len(index) == THREADS * ROUNDS
            index.close()
    finally:
        server.end()
