"""Every error class of the libraries underneath arrives as one of ours, with the cause chained.

The classes are found by looking into the modules, so that one which a new version brings is among them.
Each is raised where the library raises it: by the cursor of a real database, by the connection to a real
server, by the decoder of a real file, by the index's call of faiss.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import faiss
import psycopg
import psycopg.errors
import pytest
import redis
import redis.cluster
import redis.connection
import redis.exceptions
import soundfile
import sqlalchemy.exc
from galleries import best
from postgres_server import fresh_url
from redis.cluster import RedisCluster
from redis_server import RedisServer, free_port, fresh_database, shared_server
from stores import unit, uses, voiceprint

from voiceprint import (
    InvalidAudioError,
    MemoryStorage,
    RedisStorage,
    SQLiteStorage,
    StorageCorruptError,
    StorageError,
    StorageUnavailableError,
    VoiceprintError,
)
from voiceprint.audio import load_audio
from voiceprint.identification.gallery import Gallery
from voiceprint.identification.shared_index import SharedIndex
from voiceprint.storage import SQLStorage

SECRET = "born in 1970"
SAMPLE = Path(__file__).parent.parent / "examples" / "voices" / "amara" / "1.flac"


CANNOT_SURFACE = {
    # Of SQLAlchemy, categories for the warnings module: these are shown and not raised.
    "SAWarning",
    "SADeprecationWarning",
    "SAPendingDeprecationWarning",
    "SATestSuiteWarning",
    "Base20DeprecationWarning",
    "LegacyAPIWarning",
    "MovedIn20Warning",
    "Warning",  # of sqlite3: two statements in one text; the store gives each by itself
    "EmulatedDBAPIException",  # of SQLAlchemy: stands in for a driver's errors in its asyncio drivers alone
}


def classes(*modules: ModuleType) -> list[type[Exception]]:
    """The exceptions that the modules define or pass on, but for those that cannot surface."""
    found = {
        thing
        for module in modules
        for thing in vars(module).values()
        if isinstance(thing, type) and issubclass(thing, Exception) and thing.__name__ not in CANNOT_SURFACE
    }
    return sorted(found, key=lambda kind: kind.__name__)


def raised(kind: type[Exception], said: str) -> Exception:
    """An error of this class, made without the arguments that it asks for, which differ."""

    def nothing(self: Exception, *_: object) -> None:
        Exception.__init__(self, said)

    own = {"__init__": nothing, "__str__": lambda _: said, "__module__": __name__}
    return type(kind.__name__, (kind,), own)()


def assert_arrives(use: Callable[[], object], kind: type[VoiceprintError], cause: Any) -> None:
    with pytest.raises(kind) as caught:
        use()
    assert isinstance(caught.value.__cause__, cause)
    for text in (str(caught.value), repr(caught.value)):
        assert SECRET not in text
        assert "array" not in text
        assert "\\x" not in text


# SQLite, by the cursor that SQLAlchemy and the store run their statements on


class Failing:
    """A switch: the next statements raise `error`; None for no error."""

    error: Exception | None = None


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Failing:
    failing, connect = Failing(), sqlite3.connect

    class Cursor(sqlite3.Cursor):
        def execute(self, *arguments: Any) -> Any:
            if failing.error is not None:
                raise failing.error
            return super().execute(*arguments)

        def executemany(self, *arguments: Any) -> Any:
            if failing.error is not None:
                raise failing.error
            return super().executemany(*arguments)

    class Connection(sqlite3.Connection):
        def cursor(self, *_: Any) -> Any:
            return super().cursor(Cursor)

        def execute(self, statement: str, *values: Any) -> Any:
            # The beginning and end of a transaction go through; what is within it fails.
            if statement.startswith(("BEGIN", "PRAGMA")):
                return super().cursor().execute(statement, *values)
            return self.cursor().execute(statement, *values)

    monkeypatch.setattr(
        sqlite3, "connect", lambda *given, **named: connect(*given, **named, factory=Connection)
    )
    return failing


@pytest.mark.parametrize("kind", classes(sqlite3))
def test_every_error_of_sqlite_arrives_as_one_of_ours(
    tmp_path: Path, failing: Failing, kind: type[sqlite3.Error]
) -> None:
    with SQLiteStorage(tmp_path / "a.db") as storage:
        storage.save(voiceprint("alice"))
        failing.error = kind("some reason")
        for use in uses(storage, SECRET):
            assert_arrives(use, StorageError, sqlalchemy.exc.DBAPIError)
        with pytest.raises(StorageError, match="some reason") as caught:
            storage.get("alice")
        assert caught.value.__cause__.orig is failing.error
        reopened = storage.db_path
        storage.close()
        assert_arrives(lambda: SQLiteStorage(reopened), StorageError, sqlalchemy.exc.DBAPIError)
        failing.error = None
    with SQLiteStorage(reopened) as storage:
        assert storage.check() == []
        assert storage.count() == 1


@pytest.mark.parametrize("kind", classes(sqlalchemy.exc))
def test_every_error_of_sqlalchemy_arrives_as_one_of_ours(
    tmp_path: Path, failing: Failing, kind: type[Exception]
) -> None:
    with SQLiteStorage(tmp_path / "a.db") as storage:
        storage.save(voiceprint("alice"))
        if issubclass(kind, sqlalchemy.exc.DBAPIError):  # made by SQLAlchemy of the driver's own
            driver = sqlite3.Error if kind is sqlalchemy.exc.DBAPIError else getattr(sqlite3, kind.__name__)
            failing.error = driver("some reason")
        else:
            failing.error = raised(kind, "some reason")
        for use in uses(storage, SECRET):
            assert_arrives(use, StorageError, kind)
        failing.error = None
        assert storage.check() == []


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("database is locked", StorageUnavailableError),
        ("database or disk is full", StorageUnavailableError),
        ("disk I/O error", StorageUnavailableError),
        ("attempt to write a readonly database", StorageUnavailableError),
        ("unable to open database file", StorageUnavailableError),
        ("file is not a database", StorageCorruptError),
        ("database disk image is malformed", StorageCorruptError),
        ("no such table: callers", StorageCorruptError),
    ],
)
def test_what_sqlite_says_decides_which_error_it_is(
    tmp_path: Path,
    failing: Failing,
    monkeypatch: pytest.MonkeyPatch,
    said: str,
    kind: type[StorageError],
) -> None:
    monkeypatch.setattr("voiceprint.storage.sql.database.BUSY_TIMEOUT_S", 0.0)
    with SQLiteStorage(tmp_path / "a.db") as storage:
        storage.save(voiceprint("alice"))
        failing.error = sqlite3.OperationalError(said)
        for use in uses(storage, SECRET):
            assert_arrives(use, kind, sqlalchemy.exc.OperationalError)


# Redis, by the connection that answers are read from

REDIS = classes(redis.exceptions, redis.cluster)


@pytest.fixture(scope="module")
def node() -> Iterator[RedisServer]:
    """A cluster of one node, which has all slots."""
    started = RedisServer("--cluster-enabled", "yes", "--databases", "1", port=free_port())
    with started.client() as client:
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16_383)
        while client.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
            pass
    yield started
    started.end()


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> Failing:
    """A switch: the next answers of the server raise its `error`."""
    failing, read = Failing(), redis.connection.AbstractConnection.read_response

    def read_or_fail(self: Any, *arguments: Any, **named: Any) -> Any:
        if failing.error is None:
            return read(self, *arguments, **named)
        # The answer that was not read must not be taken for that to the next command.
        self.disconnect()
        raise failing.error

    monkeypatch.setattr(redis.connection.AbstractConnection, "read_response", read_or_fail)
    return failing


@pytest.mark.parametrize("kind", REDIS)
def test_every_error_of_redis_arrives_as_one_of_ours(reading: Failing, kind: type[Exception]) -> None:
    with shared_server().client(fresh_database()) as client, RedisStorage(client) as storage:
        storage.save(voiceprint("alice"))
        reading.error = raised(kind, f"WHAT {SECRET}")
        for use in [*uses(storage, SECRET), storage.check, lambda: RedisStorage(client)]:
            assert_arrives(use, StorageError, kind)
        reading.error = None
        storage.save(voiceprint("alice"))
        assert storage.check() == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", REDIS)
def test_every_error_of_a_cluster_arrives_as_one_of_ours(
    node: RedisServer, reading: Failing, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    monkeypatch.setattr("redis.cluster.time.sleep", lambda _: None)  # between its own tries
    with RedisCluster(host="127.0.0.1", port=node.port) as client, RedisStorage(client) as storage:
        storage.save(voiceprint("alice"))
        error = reading.error = raised(kind, f"WHAT {SECRET}")
        # As the client parses them out of an answer.
        error.host, error.port, error.node_addr, error.slot_id = "127.0.0.1", 1, ("127.0.0.1", 1), 0  # type: ignore[attr-defined]
        # After tries of its own the client gives up with another of its errors, or with a mistake of its own.
        for use in uses(storage, SECRET):
            assert_arrives(use, StorageError, (*REDIS, OSError, AttributeError))
        reading.error = None
    with RedisCluster(host="127.0.0.1", port=node.port) as client, RedisStorage(client) as storage:
        assert storage.check() == []


def test_another_type_under_a_key_of_redis_is_damage(reading: Failing) -> None:
    with shared_server().client(fresh_database()) as client, RedisStorage(client) as storage:
        client.set("{voiceprint:00}:owners", SECRET)
        assert_arrives(storage.count, StorageCorruptError, redis.ResponseError)


# soundfile, by the opening and the reading of a file


@pytest.mark.parametrize("method", ["__init__", "read"])
@pytest.mark.parametrize("kind", classes(soundfile))
def test_every_error_of_soundfile_arrives_as_one_of_ours(
    monkeypatch: pytest.MonkeyPatch, kind: type[Exception], method: str
) -> None:
    assert len(load_audio(SAMPLE)[0])

    def fail(*_: Any, **__: Any) -> None:
        raise kind(3) if issubclass(kind, soundfile.LibsndfileError) else kind("some reason")

    monkeypatch.setattr(soundfile.SoundFile, method, fail)
    assert_arrives(lambda: load_audio(SAMPLE), InvalidAudioError, kind)


def test_what_libsndfile_itself_refuses_arrives_as_one_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"no sound at all")
    assert_arrives(lambda: load_audio(path), InvalidAudioError, soundfile.LibsndfileError)


# faiss, by what the index calls of it


def of_faiss() -> list[type[Exception]]:
    """It has no classes of its own so far: C++ exceptions arrive as these two, as is looked at here."""
    found = []
    for provoke in (
        lambda: faiss.IndexFlatIP(4).reconstruct(5),
        lambda: faiss.Float32Vector().resize(1 << 60),
    ):
        try:
            provoke()
        except Exception as error:  # noqa: BLE001 - which one it is, is the question
            found.append(type(error))
    return [*found, *classes(faiss)]


def test_faiss_has_no_more_errors_than_are_walked() -> None:
    assert {RuntimeError, MemoryError} <= set(of_faiss())


@pytest.mark.parametrize(
    ("owner", "method"),
    [(faiss, "knn")],  # of a small gallery; a large one is searched and merged in index/ under the same guard
)
@pytest.mark.parametrize("kind", of_faiss())
def test_every_error_of_faiss_arrives_as_one_of_ours(
    monkeypatch: pytest.MonkeyPatch, kind: type[Exception], owner: Any, method: str
) -> None:
    shared = SharedIndex("resemblyzer", 256)
    with MemoryStorage() as storage:
        storage.save_many([voiceprint(f"c{n}", n) for n in range(5)])
        assert len(best(Gallery(storage, shared), unit(2), 3)) == 3
        storage.save(voiceprint("later", 9))
        storage.delete("c1")
        with monkeypatch.context() as broken:

            def fail(*_: Any, **__: Any) -> None:
                raise kind(f"some reason of {unit(2)}")

            broken.setattr(owner, method, fail)
            assert_arrives(lambda: best(Gallery(storage, shared), unit(2), 3), VoiceprintError, kind)
        # And it has lost nothing by it.
        assert [scored.caller_id for scored in best(Gallery(storage, shared), unit(9), 1)] == ["later"]
        assert Gallery(storage, shared).check() == []


# PostgreSQL, by the server, which raises an error where a statement of the store should run

SQLSTATES = sorted(
    state
    for kind in classes(psycopg.errors)
    # Not those of success, of warnings, and of no more rows.
    if (state := getattr(kind, "sqlstate", None)) and state[:2] not in ("00", "01", "02")
)
OF_PSYCOPG = [
    kind
    for kind in classes(psycopg, psycopg.errors)
    if issubclass(kind, psycopg.Error) and not getattr(kind, "sqlstate", None)
]


class Answer:
    """Errors that the next statements get: of this SQLSTATE from the server, or of psycopg."""

    sqlstate = ""
    error: Exception | None = None


@pytest.fixture(scope="module")
def on_server() -> Iterator[SQLStorage]:
    with SQLStorage(fresh_url()) as storage:
        storage.save(voiceprint("alice"))
        yield storage
        assert storage.check() == []
        assert storage.count() == 1


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Answer]:
    given, execute, executemany = Answer(), psycopg.Cursor.execute, psycopg.Cursor.executemany

    def fails(cursor: Any) -> bool:
        if given.error is not None:
            raise given.error
        if given.sqlstate:
            raising = f"RAISE EXCEPTION '{SECRET}' USING ERRCODE = '{given.sqlstate}'"
            execute(cursor, f"DO $$ BEGIN {raising}; END $$")
        return False

    for name, real in (("execute", execute), ("executemany", executemany)):
        monkeypatch.setattr(
            psycopg.Cursor, name, lambda self, *a, real=real, **k: fails(self) or real(self, *a, **k)
        )
    monkeypatch.setattr("voiceprint.storage.sql.database.BUSY_TIMEOUT_S", 0.0)
    yield given
    given.sqlstate, given.error = "", None


@pytest.mark.parametrize("group", sorted({state[:2] for state in SQLSTATES}))
def test_every_error_of_postgresql_arrives_as_one_of_ours(
    on_server: SQLStorage, answer: Answer, group: str
) -> None:
    for state in SQLSTATES:
        if state.startswith(group):
            answer.sqlstate = state
            for use in uses(on_server, SECRET)[::5]:
                assert_arrives(use, StorageError, (psycopg.Error, sqlalchemy.exc.DBAPIError))


@pytest.mark.parametrize("kind", OF_PSYCOPG)
def test_every_error_of_psycopg_arrives_as_one_of_ours(
    on_server: SQLStorage, answer: Answer, kind: type[Exception]
) -> None:
    answer.error = raised(kind, SECRET)
    for use in uses(on_server, SECRET):
        assert_arrives(use, StorageError, (psycopg.Error, sqlalchemy.exc.DBAPIError))


@pytest.mark.parametrize(
    ("state", "kind", "said"),
    [
        ("08006", StorageUnavailableError, "connection failed"),
        ("25006", StorageUnavailableError, "connect to the primary"),
        ("40001", StorageUnavailableError, "try again"),
        ("40P01", StorageUnavailableError, "try again"),
        ("42501", StorageUnavailableError, "may not read or change"),
        ("53100", StorageUnavailableError, "disk is full"),
        ("53200", StorageUnavailableError, "out of memory"),
        ("53300", StorageUnavailableError, "too many connections"),
        ("55P03", StorageUnavailableError, "another writer"),
        ("57014", StorageUnavailableError, "cancelled"),
        ("57P01", StorageUnavailableError, "stops or starts"),
        ("57P02", StorageUnavailableError, "stops or starts"),
        ("57P03", StorageUnavailableError, "stops or starts"),
        ("58030", StorageUnavailableError, "cannot read or write its files"),
        ("XX001", StorageCorruptError, "damaged"),
        ("XX002", StorageCorruptError, "damaged"),
        ("42703", StorageCorruptError, "not a database of this library"),
        ("22P02", StorageError, "SQLSTATE 22P02"),
    ],
)
def test_what_postgresql_says_decides_which_error_it_is(
    on_server: SQLStorage, answer: Answer, state: str, kind: type[StorageError], said: str
) -> None:
    answer.sqlstate = state
    for use in uses(on_server, SECRET):
        assert_arrives(use, kind, (psycopg.Error, sqlalchemy.exc.DBAPIError))
        with pytest.raises(kind, match=said) as caught:
            use()
        assert ("Nothing was changed" in str(caught.value)) == (kind is not StorageError)
        assert type(caught.value) is kind
