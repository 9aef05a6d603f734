"""PostgreSQL, by psycopg 3."""

from __future__ import annotations

import re
from typing import Any, ClassVar
from urllib.parse import quote, urlencode

import orjson
import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Conninfo, ExecStatus
from psycopg.types.string import StrBinaryDumper, StrDumperUnknown, TextLoader
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Engine,
    Integer,
    LargeBinary,
    Table,
    create_engine,
    literal_column,
)
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as NoFreeConnectionError
from sqlalchemy.types import TypeEngine

from voiceprint.errors import ConfigurationError, StorageCorruptError, StorageError, StorageUnavailableError
from voiceprint.storage.base import DEFAULT_MAX_CONNECTIONS
from voiceprint.storage.sql.dialect import BUSY_TIMEOUT_S, Dialect
from voiceprint.validation import hide_passwords, is_postgresql_url

__all__ = ["PostgreSQL"]

# Defaults below the URL and libpq's own variables. Without them a process waits a quarter of an hour and
# longer for a server whose machine has failed.
_CONNECTION_SETTINGS = {
    "connect_timeout": "10",  # s
    "keepalives_idle": "10",  # s
    "keepalives_interval": "5",  # s
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",  # ms
}

# First in a transaction that writes: how long it waits for the locks of others.
_LOCK_TIMEOUT = f"SELECT set_config('lock_timeout', '{BUSY_TIMEOUT_S * 1000:.0f}', true)"
# What takes no turn is `last_seen` of a call that has its answer: it need not wait for a disk or a replica.
# A crash of the server may lose that of its last 0.6 s.
_WITHOUT_TURN = f"{_LOCK_TIMEOUT}, set_config('synchronous_commit', 'off', true)"
# One writer at a time, so that ids and revisions are given in the order of commits, and the schema is created
# once. A lock of the schema, as each may hold a store. The number is arbitrary; other programs lock others.
_LOCK_STORE = (
    f"{_LOCK_TIMEOUT}, pg_advisory_xact_lock({0x766F6963} * 4294967296 + oid::bigint) "
    "FROM pg_namespace WHERE nspname = current_schema()"
)

# PostgreSQL stores no U+0000, which caller ids may contain. Its replacement must keep the order of ids, and
# so U+0001 is replaced too.
_ESCAPES = {"\0": "\1\1", "\1": "\1\2"}
_ESCAPED = {escape: character for character, escape in _ESCAPES.items()}
_needs_escape = re.compile("[\0\1]")
_escape = re.compile("\1[\1\2]")

# By SQLSTATE, or its class: why the store cannot be used now.
_UNAVAILABLE = {
    "08": "the connection failed",
    "25006": "the server is read-only, as a replica is: connect to the primary, such as by "
    "host=A,B&target_session_attrs=read-write",
    "28": "the server refused the user name or password",
    "3D000": "there is no such database",
    "3F000": "there is no such schema",
    "40001": "another transaction was in the way: try again",
    "40P01": "another transaction was in the way: try again",
    "42501": "the user may not read or change what the store needs: grant it all rights on the schema",
    "42P01": "the store's tables are no longer there",
    "53": "the server has too little of something",
    "53100": "the server's disk is full",
    "53200": "the server is out of memory",
    "53300": "the server has too many connections",
    "55P03": f"another writer has been busy for {BUSY_TIMEOUT_S:g} s: try again",
    "57": "the server ended the connection, as it stops or starts",
    "57014": "the server cancelled the statement",
    "58": "the server cannot read or write its files",
}
_CORRUPT = {"42703": "a column is missing", "XX001": "damaged data", "XX002": "a damaged index"}
# After these the server may have committed, or not.
_OUTCOME_UNKNOWN = ("08", "40003", "57P")
_NO_TABLE = "42P01"
# A NUL character, as stored JSON text has it.
_NUL = "\\u0000"
_INDEXED_CHARACTERS = 100
# A read may be repeated after these.
_CONFLICTS = ("40001", "40P01")


class PostgreSQL(Dialect):
    """A database, or a schema of one, on a server.

    url: of libpq, with any of its parameters: several hosts, sockets, TLS, a search_path by `options`. The
    rest comes from libpq's variables and files, such as ~/.pgpass.
    """

    errors: ClassVar[tuple[type[Exception], ...]] = (SQLAlchemyError, psycopg.Error)
    index_names: ClassVar[str] = (
        "SELECT indexname FROM pg_indexes WHERE schemaname = current_schema() AND tablename = 'callers'"
    )

    def __init__(self, url: str, max_connections: int = DEFAULT_MAX_CONNECTIONS) -> None:
        self._max_connections = max_connections
        text = re.sub(r"^\w+(\+psycopg)?:", "postgresql:", url)
        if not is_postgresql_url(url) or "\0" in url:
            raise self._refused(url)
        try:
            given = {name: str(value) for name, value in conninfo_to_dict(text).items()}
            defaults = {
                option.keyword.decode(): option.val.decode()
                for option in Conninfo.get_defaults()
                if option.val is not None
            }
        except (psycopg.Error, UnicodeError):  # not chained: it may quote the password
            raise self._refused(url) from None
        ports, hosts = given.get("port", "").split(","), given.get("host", "").split(",")
        # libpq reports these only when it connects. An @ within a host is the rest of a password.
        if not all(port.isdecimal() or not port for port in ports) or any("@" in host[1:] for host in hosts):
            raise self._refused(url)
        self._password = given.get("password", "")
        more = {name: value for name, value in _CONNECTION_SETTINGS.items() if name not in defaults}
        named = {"client_encoding": "utf8", "fallback_application_name": "voiceprint"}
        self._settings: dict[str, Any] = {**more, **given, **named}
        self.location = self.name = _location({**defaults, **given})

    @staticmethod
    def _refused(url: str) -> ConfigurationError:
        return ConfigurationError(
            f"{hide_passwords(url)!r} is not the URL of a PostgreSQL database, as libpq takes it: "
            "postgresql://USER:PASSWORD@HOST:PORT/DATABASE, with %40 for an @ in the password."
        )

    def engine(self) -> Engine:
        return create_engine(
            "postgresql+psycopg://",
            creator=self._connect,
            hide_parameters=True,
            pool_pre_ping=True,
            # Half of them stay open. A thread that finds none free waits.
            pool_size=self._max_connections - self._max_connections // 2,
            max_overflow=self._max_connections // 2,
            pool_timeout=BUSY_TIMEOUT_S,
            execution_options=self._engine_options(),
        )

    def _connect(self) -> psycopg.Connection[Any]:
        try:
            connection = psycopg.connect(**self._settings)
        except psycopg.OperationalError as error:
            # Messages of libpq have addresses and reasons, and no password as far as we have found.
            text = " ".join(str(error).split()).rstrip(".")
            text = text.replace(self._password, "***") if self._password else text
            raise StorageUnavailableError(
                f"{self.name} cannot be reached: {text}. Nothing was changed."
            ) from error
        encoding = connection.info.parameter_status("server_encoding")
        if encoding != "UTF8":
            connection.close()
            raise StorageError(
                f"{self.name} is a database with the encoding {encoding}, which does not hold all caller "
                "ids: create one with ENCODING 'UTF8'. Nothing was changed."
            )
        if _is_pooled(connection):
            connection.prepare_threshold = None
        connection.adapters.register_dumper(str, _EscapingBinaryDumper)
        connection.adapters.register_dumper(str, _EscapingDumper)  # last: the usual one
        connection.adapters.register_loader("text", _EscapingLoader)
        return connection

    def begin(self, connection: Connection, *, writes: bool, exclusive: bool = True) -> None:
        driver = _driver(connection)
        # psycopg sends these settings with the first statement. A reader reads one state throughout; a
        # writer, once it has the lock, the commits of all writers before it.
        levels = psycopg.IsolationLevel
        level = levels.READ_COMMITTED if writes else levels.REPEATABLE_READ
        if driver.isolation_level != level:
            driver.isolation_level = level
        read_only = None if writes else True  # not False: the error of a replica would not say that it is one
        if driver.read_only is not read_only:
            driver.read_only = read_only
        if writes:
            connection.exec_driver_sql(_LOCK_STORE if exclusive else _WITHOUT_TURN)

    def copy_rows(self, connection: Connection, table: Table, rows: list[tuple[Any, ...]]) -> int | None:
        # Binary: as text, an embedding takes twice its bytes.
        driver = _driver(connection)
        columns = sql.SQL(", ").join(sql.Identifier(column.name) for column in table.columns)
        statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)")
        with driver.cursor() as cursor:
            with cursor.copy(statement.format(sql.Identifier(table.name), columns)) as copy:
                copy.set_types([_binary_type(column.type) for column in table.columns])
                for row in rows:
                    copy.write_row(row)
            return cursor.rowcount

    def metadata_value(self, key: str) -> str:
        # PostgreSQL cannot read JSON with a NUL character: such callers have the value '' in every key. An
        # index takes texts of at most 2,700 bytes: 100 characters nearly always tell values apart.
        return (
            f"(CASE WHEN strpos(metadata, '{_NUL}') > 0 THEN '' "
            f"ELSE left(metadata::json ->> '{key}', {_INDEXED_CHARACTERS}) END)"
        )

    def metadata_conditions(
        self, values: dict[str, Any], by_index: str | None
    ) -> list[list[ColumnElement[bool]]]:
        texts = {
            key: value[:_INDEXED_CHARACTERS] if isinstance(value, str) else orjson.dumps(value).decode()
            for key, value in values.items()
        }
        # A value with U+0001 is escaped on its way, and the JSON is not: it is compared by the library alone.
        texts = {key: text for key, text in texts.items() if "\1" not in text}
        sought: dict[str, ColumnElement[str]] = {
            key: literal_column(self.metadata_value(key)) for key in texts
        }
        if any("\0" in text for text in texts.values()):
            return [[sought[key] == "" for key in texts]]
        if by_index not in texts:  # all callers are read, and that once
            return [[sought[key].in_({text, ""}) for key, text in texts.items()]]
        return [[sought[key] == text for key, text in texts.items()], [sought[key] == "" for key in texts]]

    def prepare_search(self, connection: Connection) -> None:
        # Not a plan for any value, which would read all callers where most values are common.
        connection.exec_driver_sql("SET LOCAL plan_cache_mode = force_custom_plan")

    def indexed(self, connection: Connection) -> None:
        connection.exec_driver_sql("ANALYZE callers")  # so that the planner knows how many values there are

    def check_can_partition(self) -> None:
        pass

    def partition(self, connection: Connection, partitions: int) -> int:
        from voiceprint.storage.sql.partitioning import partition

        return partition(connection, self.name, partitions)

    def partition_count(self, connection: Connection) -> int:
        from voiceprint.storage.sql.partitioning import partition_count

        return partition_count(connection)

    def is_busy(self, error: Exception) -> bool:
        return _state(error) in _CONFLICTS

    def tables_missing(self, error: Exception) -> bool:
        return _state(error) == _NO_TABLE

    def translated(self, error: Exception, *, committing: bool = False) -> StorageError:
        state = _state(error)
        if committing and (not state or state.startswith(_OUTCOME_UNKNOWN)):
            return StorageUnavailableError(
                f"{self.name}: the connection was lost while a change was committed. It may have been "
                "made: read it again before repeating it."
            )
        cause = error.orig if isinstance(error, DBAPIError) else error
        if isinstance(error, NoFreeConnectionError):
            why: str | None = f"no connection became free in {BUSY_TIMEOUT_S:g} s"
        elif not state and isinstance(cause, psycopg.OperationalError | psycopg.InterfaceError):
            why = "the connection was lost"
        else:
            why = _UNAVAILABLE.get(state) or _UNAVAILABLE.get(state[:2])
        if why:
            return StorageUnavailableError(f"{self.name} cannot be used now: {why}. Nothing was changed.")
        if why := _CORRUPT.get(state):
            return StorageCorruptError(
                f"{self.name} is damaged, or not a database of this library ({why}). Restore it from a "
                "backup. Nothing was changed."
            )
        kind = type(cause).__name__
        return StorageError(f"{self.name} refused a statement ({kind}{state and f', SQLSTATE {state}'}).")


def _is_pooled(connection: psycopg.Connection[Any]) -> bool:
    """Whether the connection goes through a pooler such as PgBouncer.

    Each transaction may then be on another connection to the server, which lacks the statements that were
    prepared on an earlier one. A pooler gives a number of its own in place of the server process's.
    """
    # Past psycopg's cursors, which would begin a transaction.
    try:
        found = connection.pgconn.exec_(b"SELECT pg_backend_pid()")
    except psycopg.Error:  # the first statement of the store says what is wrong
        return False
    pid = found.get_value(0, 0) if found.status == ExecStatus.TUPLES_OK else None
    return pid is not None and int(pid) != connection.info.backend_pid


def _driver(connection: Connection) -> psycopg.Connection[Any]:
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)  # noqa: S101  for the types
    return driver


def _binary_type(type_: TypeEngine[Any]) -> str:
    """PostgreSQL's name of a column's type."""
    if isinstance(type_, Integer):
        return "int8" if isinstance(type_, BigInteger) else "int4"
    return "bytea" if isinstance(type_, LargeBinary) else "text"


def _escaped(text: str) -> str:
    return _needs_escape.sub(lambda found: _ESCAPES[found[0]], text)


class _EscapingDumper(StrDumperUnknown):
    """Replaces U+0000 in text, which PostgreSQL cannot store."""

    def dump(self, obj: str) -> Any:
        return super().dump(_escaped(obj))


class _EscapingBinaryDumper(StrBinaryDumper):
    """As `_EscapingDumper`, for `copy_rows`."""

    def dump(self, obj: str) -> Any:
        return super().dump(_escaped(obj))


class _EscapingLoader(TextLoader):
    def load(self, data: Any) -> Any:
        text = super().load(data)
        if isinstance(text, str) and "\1" in text:
            return _escape.sub(lambda found: _ESCAPED[found[0]], text)
        return text


def _state(error: Exception) -> str:
    """The SQLSTATE of an error, "" if the server sent none."""
    return getattr(getattr(error, "orig", error), "sqlstate", None) or ""


def _location(settings: dict[str, str]) -> str:
    """The URL of a store, without secrets, and without the user, as every user finds the same records."""
    hosts = settings.get("host", settings.get("hostaddr", "")).split(",")
    ports = settings.get("port", "").split(",")
    ports = ports if len(ports) == len(hosts) else ports[:1] * len(hosts)
    places = ",".join(
        quote(host, safe="") + (f":{port}" if port else "") for host, port in zip(hosts, ports, strict=True)
    )
    more = {name: settings[name] for name in ("service", "options") if settings.get(name)}
    query = f"?{urlencode(more, quote_via=quote)}" if more else ""
    return f"postgresql://{places}/{quote(settings.get('dbname', ''), safe='')}{query}"
