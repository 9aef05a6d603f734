"""`voiceprint callers consent | opt-out | opt-in`, and `voiceprint retention show`."""

from __future__ import annotations

from typing import Annotated

import typer

from voiceprint.cli.callers import CallerId, confirmed, print_receipt
from voiceprint.cli.common import (
    CreateOption,
    JsonOption,
    StoreOption,
    counter,
    open_recognizer,
    plural,
    print_error,
    print_json,
    print_lines,
    table,
)
from voiceprint.cli.terminal import escaped
from voiceprint.consent import Consent
from voiceprint.privacy.retention import retention_schedule
from voiceprint.validation import now

retention_app = typer.Typer(help="How long callers are kept.", no_args_is_help=True)

_Reason = Annotated[str | None, typer.Option("--reason", help="Why, up to 512 characters.")]
_By = Annotated[str | None, typer.Option("--by", metavar="NAME", help="The agent or system that noted it.")]


def set_consent(
    caller_id: CallerId,
    purpose: Annotated[str, typer.Option("--purpose", help="Purpose of the use, such as authentication.")],
    version: Annotated[
        str, typer.Option("--text-version", metavar="VERSION", help="Version of the text that was agreed to.")
    ],
    obtained_at: Annotated[
        str | None, typer.Option("--at", metavar="TIME", help="Time of the consent, ISO 8601. Default: now.")
    ] = None,
    obtained_by: _By = None,
    source: Annotated[
        str | None, typer.Option("--source", help="Where the proof of it is, such as a call id.")
    ] = None,
    expires_at: Annotated[
        str | None, typer.Option("--expires-at", metavar="TIME", help="End of the consent, ISO 8601.")
    ] = None,
    store: StoreOption = None,
    create: CreateOption = False,
    as_json: JsonOption = False,
) -> None:
    """Store a caller's consent in place of an earlier one.

    The caller need not be enrolled yet. Exit code 1 when the caller has opted out.
    """
    consent = Consent(
        purpose=purpose,
        version=version,
        obtained_at=obtained_at or now(),
        obtained_by=obtained_by,
        source=source,
        expires_at=expires_at,
    )
    with open_recognizer(store, create=create) as recognizer:
        stored = recognizer.set_consent(caller_id, consent)
    if as_json:
        print_json({"caller_id": caller_id, "consent": consent.model_dump()})
    else:
        until = f", until {consent.expires_at}" if consent.expires_at else ""
        print_lines(
            f"Stored: {caller_id} agreed to {consent.purpose}, text {consent.version}, at "
            f"{consent.obtained_at}{until}."
        )
        if not stored.voiceprints:
            print_lines("The caller is not enrolled yet.")


def opt_out(
    caller_id: CallerId,
    reason: _Reason = None,
    by: _By = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    receipt: Annotated[
        bool, typer.Option("--receipt", help="Search every file for remains, and print what was removed.")
    ] = False,
    store: StoreOption = None,
    create: CreateOption = False,
    as_json: JsonOption = False,
) -> None:
    """Erase all voiceprints and data of a caller who refuses, and note the refusal.

    Until `opt-in`, nobody enrolls or matches this caller. The caller need not be enrolled. Exit code 1 when
    the answer is no, or a receipt lists remains.
    """
    with open_recognizer(store, create=create) as recognizer:
        caller = recognizer.get_caller(caller_id)
        count = 0 if caller is None else len(caller.voiceprints)
        question = f"Erase {caller_id} with {plural(count, 'voiceprint')} and note the refusal?"
        if not yes and not confirmed(escaped(question)):
            print_error("Nothing was changed.")
            raise typer.Exit(1)
        if receipt:
            deletion = recognizer.opt_out(caller_id, reason=reason, by=by, receipt=True)
            print_receipt(deletion, as_json=as_json)
            return
        removed = recognizer.opt_out(caller_id, reason=reason, by=by)
    if as_json:
        print_json({"caller_id": caller_id, "voiceprints_removed": removed})
    else:
        print_lines(f"{caller_id} has opted out: erased {plural(removed, 'voiceprint')}.")


def opt_in(
    caller_id: CallerId, store: StoreOption = None, create: CreateOption = False, as_json: JsonOption = False
) -> None:
    """End the refusal of a caller, who can be enrolled again.

    Exit code 1 when the store does not have the caller.
    """
    with open_recognizer(store, create=create) as recognizer:
        recognizer.opt_in(caller_id)
        state = recognizer.caller_state(caller_id)
    if as_json:
        print_json({"caller_id": caller_id, "state": state})
    else:
        print_lines(f"{caller_id} is {state}: the caller can be enrolled.")


@retention_app.command("show")
def show_retention(
    store: StoreOption = None, create: CreateOption = False, as_json: JsonOption = False
) -> None:
    """Show the retention period, and how many callers expire in which month.

    The period is VOICE_RETENTION, counted from the last call. `voiceprint prune --expired` deletes expired
    callers, who are not matched before that either.
    """
    with open_recognizer(store, create=create) as recognizer:
        config, storage = recognizer.config, recognizer.storage
        with counter("Counting", storage.count_callers()) as progress:
            schedule = retention_schedule(
                storage, config.retention, config.retention_period, progress=progress
            )
    if as_json:
        print_json(schedule.model_dump())
        return
    if schedule.period is None:
        print_lines("No retention period is set (VOICE_RETENTION): callers expire with their consent alone.")
    else:
        print_lines(f"Callers are kept for {schedule.period} after their last call, or until a consent ends.")
    rows: list[tuple[str, int]] = [
        *((f"expired by {reason}", count) for reason, count in schedule.expired.items()),
        *((f"expire in {month}", count) for month, count in schedule.months.items()),
        ("without an end", schedule.never),
        ("opted out, kept as a refusal", schedule.opted_out),
    ]
    table("Callers", "Number", rows=[row for row in rows if row[1]], right=("Number",))
    expired = sum(schedule.expired.values())
    if expired:
        print_lines(f"Delete the {plural(expired, 'expired caller')}: voiceprint prune --expired --delete")
