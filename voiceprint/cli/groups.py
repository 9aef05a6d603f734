"""`voiceprint groups list | members | add | remove`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

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
from voiceprint.cli.terminal import escaped
from voiceprint.consent import check_groups
from voiceprint.errors import CallerNotFoundError, CallerOptedOutError

if TYPE_CHECKING:
    from voiceprint.models import Caller

app = typer.Typer(help="Manage the groups of callers.", no_args_is_help=True)

Group = Annotated[str, typer.Argument(metavar="GROUP")]
CallerIds = Annotated[list[str], typer.Argument(metavar="CALLER_ID...")]


@app.command("list")
def list_groups(store: StoreOption = None, create: CreateOption = False, as_json: JsonOption = False) -> None:
    """List the groups, with their number of callers.

    Callers count from their first voiceprint on.
    """
    with open_recognizer(store, create=create) as recognizer:
        groups = recognizer.groups()
    if as_json:
        print_json(groups)
    elif groups:
        table("Group", "Callers", rows=[(name, f"{n:,}") for name, n in groups.items()], right=("Callers",))
    else:
        print_lines("No caller is in a group: add one with `voiceprint groups add GROUP CALLER_ID`.")


@app.command("members")
def members(
    group: Group, store: StoreOption = None, create: CreateOption = False, as_json: JsonOption = False
) -> None:
    """List the callers in a group.

    Exit code 1 when nobody is.
    """
    with open_recognizer(store, create=create) as recognizer:
        found = [caller.caller_id for caller in recognizer.members(group)]
    if as_json:
        print_json(found)
    elif found:
        print_lines(*map(escaped, found))
    if not found:
        print_error(f"Nobody is in the group {group!r}: see `voiceprint groups list`.")
        raise typer.Exit(1)


@app.command("add")
def add(group: Group, caller_ids: CallerIds, store: StoreOption = None, create: CreateOption = False) -> None:
    """Add callers to a group, which comes into being with the first.

    Exit code 1 when a caller is not enrolled, or has opted out; the others are added.
    """
    with open_recognizer(store, create=create) as recognizer:
        _change(recognizer.add_to_group, group, caller_ids, "Added {} to the group {}.")


@app.command("remove")
def remove(
    group: Group, caller_ids: CallerIds, store: StoreOption = None, create: CreateOption = False
) -> None:
    """Remove callers from a group; they stay enrolled.

    Exit code 1 when a caller is not enrolled; the others are removed.
    """
    with open_recognizer(store, create=create) as recognizer:
        _change(recognizer.remove_from_group, group, caller_ids, "Removed {} from the group {}.")


def _change(change: Callable[[str, str], Caller], group: str, caller_ids: list[str], done: str) -> None:
    check_groups([group])
    failed = 0
    wanted = dict.fromkeys(caller_ids)
    for caller_id in wanted:
        try:
            change(caller_id, group)
        except (CallerNotFoundError, CallerOptedOutError) as error:  # the other callers are changed
            failed += 1
            print_error(str(error))
    if failed < len(wanted):
        print_lines(done.format(plural(len(wanted) - failed, "caller"), repr(group)))
    if failed:
        raise typer.Exit(1)
