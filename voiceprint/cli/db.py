"""`voiceprint db upgrade | current | history | check | index-metadata | partition`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from voiceprint import migrations
from voiceprint.cli.common import (
    JsonOption,
    StoreOption,
    check_exists,
    print_json,
    print_lines,
    spinner,
    table,
)
from voiceprint.cli.gallery_options import chosen_settings
from voiceprint.errors import ConfigurationError, InvalidArgumentError
from voiceprint.privacy.encryption.opening import open_store
from voiceprint.storage import SQLiteStorage, SQLStorage
from voiceprint.storage.urls import configured_url, sqlite_path
from voiceprint.validation import is_postgresql_url

app = typer.Typer(help="Manage the database of an SQL store.", no_args_is_help=True)


@app.command("upgrade")
def upgrade(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Bring the database to the newest schema revision; a missing one is created.

    Opening a store does the same, but creates none. A database newer than this program stays unchanged.
    """
    url = _url(store)
    before = _revision(url)
    storage = _open_storage(url)
    with storage:
        storage.create()
        location = storage.location
    if as_json:
        print_json({"store": location, "before": before, "revision": migrations.HEAD})
    elif before == migrations.HEAD:
        print_lines(f"{location} is at revision {migrations.HEAD}, the newest.")
    else:
        print_lines(f"{location} was upgraded from {before or 'nothing'} to revision {migrations.HEAD}.")


@app.command("current")
def current(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Show the schema revision of the database, without a change.

    Exit code 1 when it is not the newest.
    """
    revision = _revision(_url(store))
    newest = revision == migrations.HEAD
    if as_json:
        print_json({"revision": revision, "head": migrations.HEAD, "newest": newest})
    else:
        shown = revision or "There is no schema yet"
        print_lines(f"{shown} (newest)" if newest else f"{shown}; the newest is {migrations.HEAD}")
    if not newest:
        raise typer.Exit(1)


@app.command("history")
def history(as_json: JsonOption = False) -> None:
    """List the schema revisions of this program, the oldest first."""
    revisions = migrations.history()
    if as_json:
        print_json([revision._asdict() for revision in revisions])
    else:
        table("Revision", "Change", rows=revisions)


@app.command("check")
def check(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Run the check of the database itself, and read every record.

    Exit code 1 when something is wrong.
    """
    with _open_storage(_url(store)) as storage:
        check_exists(storage, "`voiceprint db upgrade` creates it")
        findings = storage.check()
        location = storage.location
    if as_json:
        print_json([finding.model_dump() for finding in findings])
    elif findings:
        rows: list[tuple[Any, ...]] = [(found.code, found.place, found.message) for found in findings]
        table("Finding", "Place", "What to know", rows=rows)
    else:
        print_lines(f"All is well in {location}")
    if findings:
        raise typer.Exit(1)


@app.command("index-metadata")
def index_metadata(
    key: Annotated[
        str | None, typer.Argument(metavar="KEY", help="A metadata key; without it, list the keys.")
    ] = None,
    drop: Annotated[bool, typer.Option("--drop", help="Remove the index of KEY.")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Index a key of the callers' metadata, for `voiceprint callers find`; list the indexed keys.

    Others cannot write meanwhile, for some seconds a million callers.
    """
    if drop and key is None:
        raise InvalidArgumentError("Give the KEY whose index --drop removes.")
    with _open_storage(_url(store)) as storage:
        if key is not None and drop:
            storage.drop_metadata_index(key)
        elif key is not None:
            check_exists(storage, "`voiceprint db upgrade` creates it")
            with spinner("Indexing"):
                storage.index_metadata(key)
        keys = storage.metadata_indexes()
    if as_json:
        print_json(keys)
    else:
        print_lines(f"Indexed: {', '.join(keys)}" if keys else "No metadata key has an index.")


@app.command("partition")
def partition(
    partitions: Annotated[
        int | None,
        typer.Option("--partitions", help="Of each table, 2 to 128; without it, show the present number."),
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Partition the tables of callers and voiceprints in PostgreSQL by hash, while nobody is enrolled.

    A missing store is created. `voiceprint copy` moves the callers of another store into it.
    """
    with _open_storage(_url(store)) as storage:
        if partitions is None:
            before = after = storage.partitions()
        else:
            before, after = storage.partition(partitions), partitions
        location = storage.location
    if as_json:
        print_json({"store": location, "before": before, "partitions": after})
    elif before == after:
        print_lines(f"{location} has {after} partitions." if after else f"{location} is not partitioned.")
    else:
        print_lines(f"{location} now has {after} partitions, and had {before or 'none'}.")


def _url(store: str | None) -> str:
    """The URL of the store. Raises `ConfigurationError` for a store that is not SQL."""
    url = store if store is not None else configured_url(chosen_settings())
    kind = url.partition(":")[0]
    if kind != "sqlite" and not is_postgresql_url(url):
        raise ConfigurationError(
            f"`voiceprint db` is for SQL stores, and this one is of the kind {kind[:20]!r}: "
            "give --store sqlite:PATH or postgresql://USER@HOST/DATABASE."
        )
    return url


def _revision(url: str) -> str | None:
    """The schema revision of the database; None without a schema. Nothing is created or upgraded."""
    if not is_postgresql_url(url):
        return SQLiteStorage.schema_revision(sqlite_path(url.partition(":")[2]))
    from voiceprint.storage.sql.database import schema_revision
    from voiceprint.storage.sql.dialect import dialect_of

    return schema_revision(dialect_of(url))


def _open_storage(url: str) -> SQLStorage:
    storage = open_store(url, chosen_settings())
    assert isinstance(storage, SQLStorage)  # noqa: S101  for the types
    return storage
