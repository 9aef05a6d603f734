"""`voiceprint prune`."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from voiceprint.cli.common import (
    CreateOption,
    JsonOption,
    StoreOption,
    counter,
    open_recognizer,
    plural,
    print_json,
    print_lines,
    table,
)
from voiceprint.errors import InvalidArgumentError
from voiceprint.privacy.retention import ExpiredCaller, purge_expired
from voiceprint.recognizer import OpusAgentVoiceRecognizer
from voiceprint.storage import Storage
from voiceprint.storage.pruning import parse_period, prune_callers, prune_space


def prune(
    not_seen_for: Annotated[
        str | None,
        typer.Option(
            "--not-seen-for", metavar="PERIOD", help="Days, weeks, months, years: 90d, 12w, 18m, 3y."
        ),
    ] = None,
    expired: Annotated[
        bool,
        typer.Option(
            "--expired", help="Callers whose consent or retention period (VOICE_RETENTION) has ended."
        ),
    ] = False,
    receipt: Annotated[
        bool,
        typer.Option(
            "--receipt", help="With --expired --delete: search every file for remains of each caller."
        ),
    ] = False,
    space: Annotated[
        str | None,
        typer.Option(
            "--space",
            metavar="NAME",
            help="The voiceprints of this encoder, as `voiceprint spaces` names it.",
        ),
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Delete them instead of listing.")] = False,
    delete_callers: Annotated[
        bool,
        typer.Option(
            "--delete-callers", help="With --space: also the callers without voiceprints of another encoder."
        ),
    ] = False,
    store: StoreOption = None,
    create: CreateOption = False,
    as_json: JsonOption = False,
) -> None:
    """List the expired callers, or those who have not been seen for long, or count the voiceprints of an
    encoder that is no longer used; with --delete, delete them.

    A deletion cannot be undone. Callers who have opted out stay, as the refusal must not be forgotten. With
    --space, callers without voiceprints of another encoder keep theirs.
    """
    if [not_seen_for is not None, space is not None, expired].count(True) != 1:
        raise InvalidArgumentError("Give one of --expired, --not-seen-for PERIOD and --space NAME.")
    if receipt and not (expired and delete):
        raise InvalidArgumentError("--receipt goes with --expired --delete.")
    if delete_callers and space is None:
        raise InvalidArgumentError("--delete-callers goes with --space NAME.")
    period = parse_period(not_seen_for) if not_seen_for is not None else None
    with open_recognizer(store, create=create) as recognizer:
        if expired:
            _prune_expired(recognizer, delete=delete, receipt=receipt, as_json=as_json)
        elif period is not None:
            _prune_callers(recognizer.storage, period, delete=delete, as_json=as_json)
        elif space is not None:
            secondary = recognizer.secondary
            if delete and space == recognizer.encoder.name:
                raise InvalidArgumentError(
                    f"{space!r} is the space of the configured encoder, by which callers are recognized: set "
                    "VOICE_ENCODER to the encoder that replaces it. Nothing was deleted."
                )
            if delete and secondary is not None and space == secondary.name:
                raise InvalidArgumentError(
                    f"{space!r} is the space of the secondary encoder, to which callers move: unset "
                    "VOICE_ENCODER_SECONDARY first. Nothing was deleted."
                )
            _prune_space(
                recognizer.storage, space, delete=delete, delete_callers=delete_callers, as_json=as_json
            )


def _prune_expired(
    recognizer: OpusAgentVoiceRecognizer, *, delete: bool, receipt: bool, as_json: bool
) -> None:
    storage = recognizer.storage
    with counter("Looking", storage.count_callers()) as progress:
        report = purge_expired(
            storage,
            recognizer.config.retention_period,
            dry_run=not delete,
            receipts=receipt,
            progress=progress,
        )
    if as_json:
        print_json({"deleted": delete} | report.model_dump())
    else:
        rows = [
            (one.caller_id, one.reason, one.voiceprints, *([_receipt_text(one)] if receipt else []))
            for one in report.callers
        ]
        if rows:
            columns = ("Caller", "Ended", "Voiceprints", *(["Receipt"] if receipt else []))
            table(*columns, rows=rows, right=("Voiceprints",))
        who = f"{plural(len(rows), 'expired caller')} with {plural(report.voiceprints, 'voiceprint')}"
        print_lines(
            f"Deleted {who}." if delete else f"{who} would be deleted. Nothing was changed (--delete)."
        )
    if not report.complete:
        raise typer.Exit(1)


def _receipt_text(caller: ExpiredCaller) -> str:
    places = [] if caller.receipt is None else [one for one in caller.receipt.places if one.state != "erased"]
    return "; ".join(f"{one.place}: {one.state.replace('_', ' ')}" for one in places) or "all erased"


def _prune_callers(storage: Storage, period: timedelta, *, delete: bool, as_json: bool) -> None:
    with counter("Looking", storage.count_callers()) as progress:
        report = prune_callers(storage, period, dry_run=not delete, progress=progress)
    if as_json:
        print_json({"deleted": delete} | vars(report))
        return
    who = f"{plural(len(report.caller_ids), 'caller')} with {plural(report.voiceprints, 'voiceprint')}"
    if not delete:
        if report.caller_ids:
            table("Caller", rows=[(caller_id,) for caller_id in report.caller_ids])
        who = f"{who} would be deleted"
        print_lines(f"{who}: not seen since {report.not_seen_since[:10]}. Nothing was changed (--delete).")
    else:
        print_lines(f"Deleted {who}, not seen since {report.not_seen_since[:10]}.")


def _prune_space(storage: Storage, space: str, *, delete: bool, delete_callers: bool, as_json: bool) -> None:
    with counter("Looking", storage.count_callers()) as progress:
        report = prune_space(
            storage, space, delete_callers=delete_callers, dry_run=not delete, progress=progress
        )
    if as_json:
        print_json({"deleted": delete} | vars(report))
        return
    callers = report.callers + len(report.deleted_callers)
    removed = (
        f"{plural(report.voiceprints, 'voiceprint')} of the space {space!r}, of {plural(callers, 'caller')}"
    )
    if report.deleted_callers:
        removed += f", {len(report.deleted_callers)} of them with no others and deleted as a whole"
    if delete:
        print_lines(f"Deleted {removed}.")
    else:
        print_lines(f"{removed}: would be deleted. Nothing was changed (--delete).")
    if report.kept_callers:
        print_lines(
            f"{plural(len(report.kept_callers), 'caller')} without voiceprints of another encoder "
            f"{'keep' if len(report.kept_callers) > 1 else 'keeps'} theirs: enroll them with another encoder "
            "first, or delete them too (--delete-callers)."
        )
        if not delete:
            table("Caller", rows=[(caller_id,) for caller_id in report.kept_callers])
