"""`voiceprint callers list | show | delete`."""

from __future__ import annotations

from itertools import islice
from typing import Annotated, Any

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
from voiceprint.errors import CallerNotFoundError, InvalidArgumentError
from voiceprint.models import Caller, DeletionReceipt, Provenance, Voiceprint
from voiceprint.privacy.erasure import delete_with_receipt
from voiceprint.recognizer import OpusAgentVoiceRecognizer
from voiceprint.retention import Expiry, state_of

app = typer.Typer(help="List, show and delete enrolled callers.", no_args_is_help=True)

_SHOWN_PROVENANCE = {"source", "quality", "duration_s", "net_speech_s"}

CallerId = Annotated[str, typer.Argument(metavar="CALLER_ID")]


@app.command("list")
def list_callers(
    limit: Annotated[int | None, typer.Option(min=1, help="Most callers to list. Default: all.")] = None,
    space: Annotated[
        str | None,
        typer.Option("--space", metavar="NAME", help="Only callers with a voiceprint of this encoder."),
    ] = None,
    without_space: Annotated[
        str | None,
        typer.Option(
            "--without-space", metavar="NAME", help="Only callers with no voiceprint of this encoder."
        ),
    ] = None,
    store: StoreOption = None,
    create: CreateOption = False,
    as_json: JsonOption = False,
) -> None:
    """List the enrolled callers.

    The encoders are those of `voiceprint spaces`. With --without-space, the list has the callers who still
    have to be enrolled with an encoder.
    """

    def is_wanted(caller: Caller) -> bool:
        encoders = {print_.encoder for print_ in caller.voiceprints}
        return (space is None or space in encoders) and without_space not in encoders

    with open_recognizer(store, create=create) as recognizer:
        callers = list(islice(filter(is_wanted, recognizer.callers()), limit))
        expiry = Expiry(recognizer.config.retention_period)
    if as_json:
        print_json([caller_json(caller) for caller in callers])
        return
    if not callers:
        is_filtered = space is not None or without_space is not None
        print_lines("No caller is like that." if is_filtered else "Nobody is enrolled.")
        return
    rows = [
        (
            caller.caller_id,
            state_of(caller, expiry).replace("_", " "),
            len(caller.voiceprints),
            day(caller.created_at),
            day(caller.last_seen),
        )
        for caller in callers
    ]
    table("Caller", "State", "Voiceprints", "Enrolled", "Last seen", rows=rows, right=("Voiceprints",))


@app.command("show")
def show_caller(
    caller_id: CallerId, store: StoreOption = None, create: CreateOption = False, as_json: JsonOption = False
) -> None:
    """Show a caller with metadata and voiceprints.

    Exit code 1 when the caller is not enrolled.
    """
    with open_recognizer(store, create=create) as recognizer:
        caller = recognizer.get_caller(caller_id)
        state = recognizer.caller_state(caller_id)
    if caller is None or state is None:
        raise _not_enrolled(caller_id)
    if as_json:
        print_json(caller_json(caller) | {"state": state})
        return
    if caller.opt_out is not None:
        reason = f" ({caller.opt_out.reason})" if caller.opt_out.reason else ""
        print_lines(f"{caller.caller_id}: opted out {day(caller.opt_out.at)}{reason}")
        return
    print_lines(
        f"{caller.caller_id}: {state}, since {day(caller.created_at)}, last seen {day(caller.last_seen)}"
    )
    if caller.groups:
        print_lines(f"Groups: {', '.join(caller.groups)}")
    if caller.consent is not None:
        fields = caller.consent.model_dump(exclude_none=True)
        table("Consent", "Value", rows=[(name.replace("_", " "), value) for name, value in fields.items()])
    if caller.metadata:
        table("Metadata", "Value", rows=caller.metadata.items())
    rows = [
        (print_.id, day(print_.created_at), print_.encoder, *_provenance(print_))
        for print_ in caller.voiceprints
    ]
    right = ("Voiceprint", "Quality", "Length", "Speech")
    columns = ("Voiceprint", "Enrolled", "Encoder", "Quality", "Length", "Speech", "Source")
    table(*columns, rows=rows, right=right)


@app.command("delete")
def delete_caller(
    caller_id: CallerId,
    voiceprint: Annotated[
        int | None,
        typer.Option(
            "--voiceprint", metavar="ID", help="Only this voiceprint, as `voiceprint callers show` lists it."
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    receipt: Annotated[
        bool, typer.Option("--receipt", help="Search every file for remains, and print what was removed.")
    ] = False,
    rewrite: Annotated[
        bool, typer.Option("--rewrite", help="Let a Redis server rewrite its files, and print a receipt.")
    ] = False,
    store: StoreOption = None,
    create: CreateOption = False,
    as_json: JsonOption = False,
) -> None:
    """Delete a caller with all voiceprints and metadata, or one of the voiceprints. This cannot be undone.

    Exit code 1 when the caller is not enrolled, the answer is no, or a receipt lists remains.
    """
    deletion: DeletionReceipt | None = None
    removed = 0
    with open_recognizer(store, create=create) as recognizer:
        caller = recognizer.get_caller(caller_id)
        if caller is None:
            raise _not_enrolled(caller_id)
        if voiceprint is not None:
            if receipt or rewrite:
                raise InvalidArgumentError(
                    "--voiceprint is without a receipt: leave out --receipt and --rewrite."
                )
            _delete_voiceprint(recognizer, caller, voiceprint, yes=yes, as_json=as_json)
            return
        who = f"{caller_id} with {plural(len(caller.voiceprints), 'voiceprint')}"
        if not yes and not confirmed(escaped(f"Delete {who}?")):
            print_error("Nothing was deleted.")
            raise typer.Exit(1)
        if rewrite and not recognizer.storage.rewrites_server_files:
            raise InvalidArgumentError("--rewrite is for a Redis server: leave it out for this store.")
        if receipt or rewrite:
            deletion = delete_with_receipt(recognizer.storage, caller_id, rewrite=rewrite)
        else:
            removed = recognizer.delete_caller(caller_id)
    if deletion is not None:
        print_receipt(deletion, as_json=as_json)
    elif as_json:
        print_json({"caller_id": caller_id, "voiceprints_removed": removed})
    else:
        print_lines(f"Deleted {caller_id} with {plural(removed, 'voiceprint')}.")


def _delete_voiceprint(
    recognizer: OpusAgentVoiceRecognizer, caller: Caller, id_: int, *, yes: bool, as_json: bool
) -> None:
    ids = [print_.id for print_ in caller.voiceprints]
    if id_ not in ids:
        raise InvalidArgumentError(
            f"{caller.caller_id!r} has no voiceprint {id_} (`voiceprint callers show`): nothing was deleted."
        )
    if not yes and not confirmed(escaped(f"Delete the voiceprint {id_} of {caller.caller_id}?")):
        print_error("Nothing was deleted.")
        raise typer.Exit(1)
    removed = int(recognizer.delete_voiceprint(id_))
    if as_json:
        print_json({"caller_id": caller.caller_id, "voiceprints_removed": removed})
    else:
        left = plural(len(ids) - 1, "voiceprint")
        print_lines(f"Deleted the voiceprint {id_} of {caller.caller_id}, who has {left} left.")


def confirmed(question: str) -> bool:
    """Whether the user answers yes. Raises `InvalidArgumentError` where nobody can answer."""
    try:
        return typer.confirm(question, err=True)
    except typer.Abort as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise
        print_error("")
        raise InvalidArgumentError(
            "The question has no answer: nothing was changed. Give --yes to do it without a question."
        ) from error


def print_receipt(receipt: DeletionReceipt, *, as_json: bool) -> None:
    """Print what was removed; exit code 1 where a place is not erased."""
    if as_json:
        print_json(receipt.model_dump())
    else:
        print_lines(
            f"Deleted {receipt.caller_id} with {plural(receipt.voiceprints, 'voiceprint')} at "
            f"{receipt.deleted_at}; looked for remains until {receipt.checked_at}."
        )
        rows = [(one.place, one.state.replace("_", " "), one.detail) for one in receipt.places]
        table("Place", "State", "What was found", rows=rows)
    if not receipt.complete:
        raise typer.Exit(1)


def _not_enrolled(caller_id: str) -> CallerNotFoundError:
    return CallerNotFoundError(f"The caller {caller_id!r} is not enrolled: see `voiceprint callers list`.")


def caller_json(caller: Caller) -> dict[str, Any]:
    """A caller as JSON, without embeddings and fingerprints of audio, which are biometric data."""
    fields = caller.model_dump(exclude={"voiceprints"})
    shown = {"id": True, "encoder": True, "created_at": True, "provenance": _SHOWN_PROVENANCE}
    prints = [print_.model_dump(include=shown) for print_ in caller.voiceprints]
    return fields | {"voiceprints": prints}


def _provenance(voiceprint: Voiceprint) -> tuple[str, str, str, str]:
    """Quality, length, speech and source; "-" for what is not known."""
    origin = voiceprint.provenance or Provenance()
    seconds = [
        "-" if value is None else f"{value:.1f} s" for value in (origin.duration_s, origin.net_speech_s)
    ]
    quality = "-" if origin.quality is None else f"{origin.quality:.2f}"
    return quality, seconds[0], seconds[1], origin.source or "-"


def day(time: str | None) -> str:
    """A stored time to the second, for people."""
    return f"{time[:10]} {time[11:19]} UTC" if time else "-"
