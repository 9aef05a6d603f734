"""`voiceprint db upgrade | current | history | check`."""

from __future__ import annotations

from typing import Any

import typer

from voiceprint import migrations
from voiceprint.cli.common import JsonOption, StoreOption, check_exists, print_json, say, table
from voiceprint.config import VoiceFingerprintConfig
from voiceprint.errors import ConfigurationError
from voiceprint.storage import SQLiteStorage
from voiceprint.storage.urls import sqlite_path

app = typer.Typer(help="Look after the database of an SQL store.", no_args_is_help=True)


@app.command("upgrade")
def upgrade(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Bring the database to the newest schema revision; a missing one is created.

    Opening a store does the same, but creates none. A database that is newer than this program is left alone.
    """
    path = _path(store)
    before = SQLiteStorage.schema_revision(path)
    storage = _opened(path)
    with storage:
        storage.create()
        location = storage.location
    if as_json:
        print_json({"store": location, "before": before, "revision": migrations.HEAD})
    elif before == migrations.HEAD:
        say(f"{location} is at revision {migrations.HEAD}, the newest.")
    else:
        say(f"{location} was upgraded from {before or 'nothing'} to revision {migrations.HEAD}.")


@app.command("current")
def current(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Show the schema revision of the database, which is not changed.

    Exit code 1 when it is not the newest.
    """
    revision = SQLiteStorage.schema_revision(_path(store))
    newest = revision == migrations.HEAD
    if as_json:
        print_json({"revision": revision, "head": migrations.HEAD, "newest": newest})
    else:
        shown = revision or "There is no schema yet"
        say(f"{shown} (newest)" if newest else f"{shown}; the newest is {migrations.HEAD}")
    if not newest:
        raise typer.Exit(1)


@app.command("history")
def history(as_json: JsonOption = False) -> None:
    """List the schema revisions that this program knows, the oldest first."""
    revisions = migrations.history()
    if as_json:
        print_json([revision._asdict() for revision in revisions])
    else:
        table("Revision", "What it brought", rows=revisions)


@app.command("check")
def check(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Let the database check itself, and read every record.

    Exit code 1 when something is wrong.
    """
    with _opened(_path(store)) as storage:
        check_exists(storage, "`voiceprint db upgrade` creates it")
        findings = storage.check()
        location = storage.location
    if as_json:
        print_json([finding.model_dump() for finding in findings])
    elif findings:
        rows: list[tuple[Any, ...]] = [(found.code, found.place, found.message) for found in findings]
        table("Finding", "Place", "What to know", rows=rows)
    else:
        say(f"All is well in {location}")
    if findings:
        raise typer.Exit(1)


def _path(store: str | None) -> str:
    """The file of the store, which is an SQLite database."""
    config = VoiceFingerprintConfig()
    url = store if store is not None else f"{config.storage_backend}:{config.storage_path}"
    kind, _, path = url.partition(":")
    if kind != "sqlite":
        raise ConfigurationError(
            f"`voiceprint db` is for SQL stores, and this one is of the kind {kind[:20]!r}: "
            "give --store sqlite:PATH."
        )
    return sqlite_path(path)


def _opened(path: str) -> SQLiteStorage:
    limit = VoiceFingerprintConfig().max_voiceprints_per_caller
    return SQLiteStorage(path, max_voiceprints_per_caller=limit)
