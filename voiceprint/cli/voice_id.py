"""`voiceprint import-voice-id`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from voiceprint.cli.common import (
    JsonOption,
    StoreOption,
    counter,
    open_recognizer,
    plural,
    print_error,
    print_json,
    print_lines,
)
from voiceprint.cli.enrollment import LISTED
from voiceprint.consent import Consent
from voiceprint.enrollment.voice_id import SERVICE, Outcome, import_speaker, read_speakers
from voiceprint.errors import InvalidArgumentError

_SAID: Final[dict[Outcome, str]] = {
    "opted_out": "opted out",
    "pending": "pending, with a consent and without a voiceprint: enroll them",
    "to_enroll": "to enroll, not stored (--consent-version stores them as pending)",
    "expired": "expired in Voice ID, not stored: ask for a new consent",
    "there_already": "callers here already, unchanged",
    "conflict": "opted out in Voice ID, but enrolled or with a consent here since: unchanged",
}


def import_voice_id(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE", help="Output of `aws voice-id list-speakers`, or CSV with its fields, FILE.csv."
        ),
    ],
    consent_version: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT", help="Version of the text that the speakers agreed to, for their consent."
        ),
    ] = None,
    consent_purpose: Annotated[
        str, typer.Option(metavar="TEXT", help="Purpose of that consent.")
    ] = "authentication",
    consent_expires_at: Annotated[
        str | None, typer.Option(metavar="TIME", help="End of that consent, ISO 8601.")
    ] = None,
    group: Annotated[
        str | None, typer.Option(metavar="NAME", help="Put the pending callers into this group.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done; change nothing.")
    ] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take over the speakers of Amazon Connect Voice ID: who has opted out, and who is to be enrolled anew.

    Voice ID gave no voiceprints out. Speakers who opted out are opted out here, so that nobody enrolls or
    matches them. With --consent-version the others become pending callers, with that consent at the time of
    their enrollment in Voice ID; enroll them from recordings with `enroll-csv`, which reads Voice ID's jobs.
    Without it they are only counted: a consent that nobody gave must not be stored.

    The command may be repeated. Exit code 1 when a speaker opted out there and was enrolled here since.
    """
    consent = None
    if consent_version is not None:
        consent = Consent(
            purpose=consent_purpose, version=consent_version, source=SERVICE, expires_at=consent_expires_at
        )
    elif group is not None or consent_expires_at is not None:
        raise InvalidArgumentError(
            "--group and --consent-expires-at are for pending callers: give --consent-version."
        )
    lists = [read_speakers(file) for file in files]
    speakers = [speaker for found in lists for speaker in found.speakers]
    outcomes: dict[Outcome, list[str]] = {outcome: [] for outcome in _SAID}
    with (
        open_recognizer(store, create=True) as recognizer,
        counter("Importing", len(speakers)) as progress,
    ):
        for done, speaker in enumerate(speakers, 1):
            outcome = import_speaker(recognizer.storage, speaker, consent, group, dry_run=dry_run)
            outcomes[outcome].append(speaker.caller_id)
            progress(done)
    incomplete = [str(file) for file, found in zip(files, lists, strict=True) if not found.complete]
    if as_json:
        print_json({"changed": not dry_run, "incomplete_files": incomplete, "callers": outcomes})
    else:
        _print(len(speakers), outcomes, dry_run=dry_run)
    for file in incomplete:
        print_error(f"The last page of {file} has a NextToken: the domain has more speakers than the file.")
    if outcomes["conflict"]:
        raise typer.Exit(1)


def _print(speakers: int, outcomes: dict[Outcome, list[str]], *, dry_run: bool) -> None:
    print_lines(f"{plural(speakers, 'speaker')}{'; nothing was changed.' if dry_run else '.'}")
    rows = [(len(names), _SAID[outcome]) for outcome, names in outcomes.items() if names]
    for count, said in rows:
        print_lines(f"  {count:>8,}  {said}")
    for name in outcomes["conflict"][:LISTED]:
        print_lines(f"            {name}: `voiceprint callers opt-out` erases the voiceprints")
