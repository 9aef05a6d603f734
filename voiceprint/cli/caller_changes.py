"""`voiceprint callers find | update | rename | merge`."""

from __future__ import annotations

from typing import Annotated

import typer

from voiceprint.cli.callers import CallerId, caller_json, confirmed, day
from voiceprint.cli.common import (
    CreateOption,
    JsonOption,
    StoreOption,
    open_recognizer,
    plural,
    print_error,
    print_json,
    print_lines,
    table,
)
from voiceprint.cli.metadata import MetadataPairs, parse_metadata
from voiceprint.cli.terminal import escaped
from voiceprint.errors import InvalidArgumentError


def find_callers(
    metadata: MetadataPairs = None,
    limit: Annotated[int, typer.Option(min=1, help="Most callers to list.")] = 1_000,
    after: Annotated[
        str, typer.Option(metavar="CALLER_ID", help="List the callers after this one, for the next page.")
    ] = "",
    store: StoreOption = None,
    create: CreateOption = False,
    as_json: JsonOption = False,
) -> None:
    """List the callers whose metadata has these values, in the order of their ids.

    Values are equal with their types: `n=1` is the text, `n:=1` the number. `voiceprint db index-metadata`
    makes this quick in an SQL store.

    Exit code 1 when there is none.
    """
    wanted = parse_metadata(metadata or [])
    with open_recognizer(store, create=create) as recognizer:
        callers = recognizer.find_callers(wanted, after=after, limit=limit)
    if as_json:
        print_json([caller_json(caller) for caller in callers])
    elif callers:
        rows = [
            (one.caller_id, len(one.voiceprints), day(one.created_at), day(one.last_seen)) for one in callers
        ]
        table("Caller", "Voiceprints", "Enrolled", "Last seen", rows=rows, right=("Voiceprints",))
    else:
        print_lines("No caller has this metadata.")
    if len(callers) == limit:
        print_error(f"There may be more: --after {callers[-1].caller_id!r} lists them.")
    if not callers:
        raise typer.Exit(1)


def update_caller(
    caller_id: CallerId,
    metadata: MetadataPairs = None,
    replace: Annotated[bool, typer.Option("--replace", help="Remove all other keys.")] = False,
    store: StoreOption = None,
    create: CreateOption = False,
    as_json: JsonOption = False,
) -> None:
    """Set metadata of a caller; other keys stay, unless --replace is given.

    Exit code 1 when the caller is not enrolled.
    """
    fields = parse_metadata(metadata or [])
    if not fields and not replace:
        raise InvalidArgumentError("Give KEY=VALUE, or --replace to remove all metadata.")
    with open_recognizer(store, create=create) as recognizer:
        caller = recognizer.update_metadata(caller_id, fields, replace=replace)
    if as_json:
        print_json(caller_json(caller))
    else:
        print_lines(f"{caller_id} has {plural(len(caller.metadata), 'metadata key')}.")


def rename_caller(
    caller_id: CallerId,
    new_id: Annotated[str, typer.Argument(metavar="NEW_ID")],
    store: StoreOption = None,
    create: CreateOption = False,
    as_json: JsonOption = False,
) -> None:
    """Give a caller another id. The voiceprints get new ids.

    Exit code 1 when the caller is not enrolled, 2 when the new id is taken (see `callers merge`).
    """
    with open_recognizer(store, create=create) as recognizer:
        caller = recognizer.rename_caller(caller_id, new_id)
    if as_json:
        print_json(caller_json(caller))
    else:
        print_lines(f"Renamed {caller_id} to {caller.caller_id}.")


def merge_callers(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="The caller who goes.")],
    into: Annotated[str, typer.Argument(metavar="INTO", help="The caller who stays.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    store: StoreOption = None,
    create: CreateOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make one caller of two who are the same person. This cannot be undone.

    Voiceprints, metadata and groups of SOURCE go to INTO, whose own values of a key stay. Of more voiceprints
    than VOICE_MAX_VOICEPRINTS_PER_CALLER, the oldest are removed. Of two consents, the one that ends first
    stays.

    Exit code 1 when one of them is not enrolled, or the answer is no.
    """
    with open_recognizer(store, create=create) as recognizer:
        if not yes and not confirmed(escaped(f"Merge {source} into {into}?")):
            print_error("Nothing was changed.")
            raise typer.Exit(1)
        caller, removed = recognizer.merge_callers(source, into)
    if as_json:
        print_json({"caller": caller_json(caller), "removed_voiceprints": removed})
        return
    print_lines(f"Merged {source} into {into}, who has {plural(len(caller.voiceprints), 'voiceprint')}.")
    if removed:
        ids = ", ".join(map(str, removed))
        print_lines(f"Beyond the limit, and removed: {plural(len(removed), 'voiceprint')} ({ids}).")
