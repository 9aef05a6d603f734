"""The speakers of Amazon Connect Voice ID: its lists, and what becomes of each speaker here.

Voice ID gave no voiceprints out, so that a list brings who has opted out, and who is to be enrolled anew.
docs/migration-voice-id.md shows the way.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from voiceprint._files import RefusedFileError, open_regular
from voiceprint.consent import Consent
from voiceprint.errors import InvalidArgumentError
from voiceprint.models import Caller
from voiceprint.storage import Storage
from voiceprint.validation import check_caller_id, check_time, shown

SpeakerStatus = Literal["ENROLLED", "EXPIRED", "OPTED_OUT", "PENDING"]
"""The status of a speaker in Voice ID."""

Outcome = Literal["opted_out", "pending", "to_enroll", "expired", "there_already", "conflict"]
"""The outcome of a speaker:

    opted_out      is opted out here, now or before
    pending        is a caller with a consent, without a voiceprint
    to_enroll      is not stored, without a consent to store
    expired        was expired in Voice ID and is not stored: a new consent is needed
    there_already  is a caller here, and stays as is
    conflict       has opted out there, and was enrolled or has consented here since: nothing is changed
"""

SERVICE: Final = "Amazon Connect Voice ID"
_SPACE: Final = re.compile(r"\s*")
_STATUSES: Final = ("ENROLLED", "EXPIRED", "OPTED_OUT", "PENDING")
_COLUMNS: Final = (
    "CustomerSpeakerId",
    "GeneratedSpeakerId",
    "DomainId",
    "Status",
    "CreatedAt",
    "UpdatedAt",
    "LastAccessedAt",
)


class Speaker(NamedTuple):
    """A speaker of Voice ID. Times are ISO 8601 UTC with a `Z`, or None where the list has none.

    caller_id: the CustomerSpeakerId; the GeneratedSpeakerId of a speaker without one.
    """

    caller_id: str
    status: SpeakerStatus
    domain_id: str | None = None
    created_at: str | None = None
    updated_at: str | None = None
    last_accessed_at: str | None = None


class SpeakerList(NamedTuple):
    """The speakers of a file. complete: False where its last page says that there are more."""

    speakers: list[Speaker]
    complete: bool


def read_speakers(path: str | Path) -> SpeakerList:
    """The speakers in a file of ListSpeakers: JSON, also several pages one after the other, or CSV by .csv.

    The CSV file has the names of the fields as its header, in any order. All rows are checked before one is
    returned. Raises `InvalidArgumentError`.
    """
    path = Path(path)
    try:
        with open_regular(path) as stream:
            text = stream.read().decode("utf-8-sig")
    except RefusedFileError as error:
        raise InvalidArgumentError(f"{error} Give a list of speakers.") from error
    except OSError as error:
        raise InvalidArgumentError(f"{path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError:
        raise InvalidArgumentError(f"{path} is not UTF-8.") from None  # the error quotes the file
    complete = True
    if path.suffix.lower() == ".csv":
        rows: Iterable[dict[str, Any]] = _csv_rows(text, path)
    else:
        pages = [page for document in _documents(text, path) for page in _pages(document, path)]
        rows = [row for page in pages for row in page["SpeakerSummaries"]]
        complete = not (pages and pages[-1].get("NextToken"))
    speakers = [_speaker(row, number, path) for number, row in enumerate(rows, 1)]
    return SpeakerList(speakers, complete)


def _csv_rows(text: str, path: Path) -> Iterator[dict[str, Any]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    missing = {"CustomerSpeakerId", "Status"} - {*(reader.fieldnames or ())}
    if missing:
        raise InvalidArgumentError(
            f"{path} has no column {min(missing)}: the header names the fields of ListSpeakers, "
            f"{', '.join(_COLUMNS)}; CustomerSpeakerId and Status are needed."
        )
    try:
        for row in reader:
            yield {name: value for name, value in row.items() if name in _COLUMNS and value}
    except csv.Error as error:
        raise InvalidArgumentError(f"{path}, line {reader.line_num} is not CSV: {error}.") from None


def _documents(text: str, path: Path) -> Iterator[Any]:
    """The JSON documents that follow each other in a file, as calls append them."""
    decoder, place = json.JSONDecoder(), _after_space(text, 0)
    while place < len(text):
        try:
            document, end = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):  # the error quotes the file
            line = text.count("\n", 0, place) + 1
            raise InvalidArgumentError(f"{path}: the document from line {line} on is not JSON.") from None
        yield document
        place = _after_space(text, end)


def _after_space(text: str, place: int) -> int:
    found = _SPACE.match(text, place)
    return place if found is None else found.end()


def _pages(document: Any, path: Path) -> list[dict[str, Any]]:
    """The pages of a document: a page, a list of pages or of speakers, or one speaker."""
    items = document if isinstance(document, list) else [document]
    pages = []
    for item in items:
        if isinstance(item, dict) and isinstance(item.get("SpeakerSummaries"), list):
            pages.append(item)
        elif isinstance(item, dict) and isinstance(item.get("Speaker"), dict):  # DescribeSpeaker
            pages.append({"SpeakerSummaries": [item["Speaker"]]})
        elif isinstance(item, dict) and "Status" in item:
            pages.append({"SpeakerSummaries": [item]})
        else:
            raise InvalidArgumentError(
                f"{path} is no list of speakers: give the output of `aws voice-id list-speakers`, which has "
                "SpeakerSummaries."
            )
    return pages


def _speaker(row: Any, number: int, path: Path) -> Speaker:
    place = f"{path}, speaker {number}"
    if not isinstance(row, dict):
        raise InvalidArgumentError(f"{place} is no JSON object.")
    status = row.get("Status")
    if status not in _STATUSES:
        raise InvalidArgumentError(f"{place}: Status is {shown(status)}: {', '.join(_STATUSES)} are known.")
    domain = row.get("DomainId")
    try:
        return Speaker(
            check_caller_id(row.get("CustomerSpeakerId") or row.get("GeneratedSpeakerId") or ""),
            status,
            domain if isinstance(domain, str) else None,
            *(_time(row.get(name)) for name in _COLUMNS[4:]),
        )
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"{place}: {error}") from None


def _time(value: object) -> str | None:
    """The canonical time of ISO 8601 text, or of seconds since 1970, as the first AWS CLI prints it."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return check_time(datetime.fromtimestamp(value, timezone.utc))
        except (ValueError, OverflowError, OSError):
            raise InvalidArgumentError(f"{shown(value)} is no time in seconds since 1970.") from None
    return check_time(value)


def import_speaker(
    storage: Storage,
    speaker: Speaker,
    consent: Consent | None = None,
    group: str | None = None,
    *,
    dry_run: bool = False,
) -> Outcome:
    """Store a speaker as `Outcome` says; return the outcome. Repeated, nothing more changes.

    consent: the one that speakers gave; each is stored with the time of the speaker's creation in Voice ID.
        None stores those who have opted out alone.
    group: of the pending callers. dry_run: change nothing.
    """
    outcome = _outcome(storage.get(speaker.caller_id), speaker, consent)
    if dry_run:
        return outcome
    if outcome == "opted_out":
        when = "" if speaker.updated_at is None else f" by {speaker.updated_at}"
        storage.opt_out(speaker.caller_id, reason=f"opted out in {SERVICE}{when}", by=SERVICE)
    elif outcome == "pending" and consent is not None:
        obtained_at = speaker.created_at or consent.obtained_at
        given = Consent(**consent.model_dump() | {"obtained_at": obtained_at})
        storage.set_consent(speaker.caller_id, given)
        note = {
            "status": speaker.status,
            "domain_id": speaker.domain_id,
            "last_accessed_at": speaker.last_accessed_at,
        }
        known = {name: value for name, value in note.items() if value is not None}
        storage.update_metadata(speaker.caller_id, {"voice_id": known})
        if group is not None:
            storage.set_groups(speaker.caller_id, add=[group])
    return outcome


def _outcome(caller: Caller | None, speaker: Speaker, consent: Consent | None) -> Outcome:
    if caller is not None and caller.opt_out is not None:
        return "opted_out"
    if speaker.status == "OPTED_OUT":
        return "conflict" if caller is not None and _is_newer(caller, speaker) else "opted_out"
    if caller is not None:
        return "there_already"
    if speaker.status == "EXPIRED":
        return "expired"
    return "to_enroll" if consent is None else "pending"


def _is_newer(caller: Caller, speaker: Speaker) -> bool:
    """Whether the caller was enrolled here, or has consented after the speaker opted out."""
    consent = caller.consent
    return bool(caller.voiceprints) or (
        consent is not None and consent.obtained_at > (speaker.updated_at or "")
    )
