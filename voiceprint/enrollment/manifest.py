"""Manifests: files that list recordings to enroll, a row each, as CSV or JSON Lines.

    caller_id,path,channel,encoding,rate,start,end,metadata.name
    alice,calls/0001.wav,0,,,12.5,31,Alice
    bruno,calls/0002.ulaw,,mulaw,8000,,,Bruno

Only `caller_id` and `path` are required. An empty cell is as an absent one. In JSON Lines, a row is an object
with these keys, and `metadata` may be an object too; null is as an absent key. A file named .json is a job of
Amazon Connect Voice ID, see `job_rows`.
"""

from __future__ import annotations

import csv
import difflib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from voiceprint._files import RefusedFileError, open_regular
from voiceprint.audio import Encoding, Recording
from voiceprint.audio.io.buffers import MAX_CHANNELS, check_channel, check_sample_rate
from voiceprint.audio.io.encodings import check_encoding
from voiceprint.audio.io.excerpt import Excerpt
from voiceprint.audio.io.reader import named, open_audio
from voiceprint.errors import InvalidArgumentError, InvalidAudioError, VoiceprintError
from voiceprint.validation import MAX_METADATA_BYTES, check_caller_id, check_metadata, is_integer, shown

COLUMNS: Final = ("caller_id", "path", "channel", "encoding", "rate", "start", "end")
"""The columns of a manifest beside `metadata.KEY`."""

REQUIRED: Final = COLUMNS[:2]
METADATA: Final = "metadata."
_JSON_SUFFIXES: Final = (".jsonl", ".ndjson")
_JOB_SUFFIX: Final = ".json"
S3: Final = "s3://"

_MAX_LINE_BYTES: Final = 8_000_000
"""Metadata has at most 1 MB, of which JSON may escape each byte by six. Doubled, a file that is no manifest
takes 8 MB of memory more before it is refused."""


_JOBS: Final = {"SpeakerEnrollmentRequests": "SpeakerId", "FraudsterRegistrationRequests": "RequestId"}
"""Lists of requests in the jobs of Voice ID, and the key of the caller id in each request."""

_NAMED: Final = 5
"""Unknown keys that the error of a row names: more are one mistake, and the message stays readable."""


class ManifestRow(NamedTuple):
    """A row of a manifest: one recording of one caller.

    line: of the file on which the row starts, from 1; of a Voice ID job, the number of the recording.
    path: as written, or for s3:// the local copy; relative to `folder`, the manifest's.
    start_s, end_s: excerpt of the recording, in seconds; None is the end.
    error: why the row cannot be used, all its faults together; the other fields are then as far as readable.
    """

    line: int
    folder: Path
    caller_id: str = ""
    path: str = ""
    channel: int | None = None
    encoding: Encoding | None = None
    sample_rate: int | None = None
    start_s: float = 0.0
    end_s: float | None = None
    metadata: dict[str, Any] | None = None
    error: VoiceprintError | None = None

    def __repr__(self) -> str:
        return f"ManifestRow(line={self.line}, caller_id={self.caller_id!r}, path={self.path!r})"

    @property
    def file(self) -> Path:
        """The recording's path."""
        return self.folder / self.path

    def open(self) -> Recording:
        """The recording, or the excerpt of it. Raises `InvalidAudioError`, and the row's `error`."""
        if self.error is not None:
            raise self.error
        return Recording.open(
            self.file,
            encoding=self.encoding,
            sample_rate=self.sample_rate,
            channel=self.channel,
            start_s=self.start_s,
            end_s=self.end_s,
        )

    def check(self) -> None:
        """Check that `open` finds audio with this channel and excerpt, without decoding it where possible.

        Raises as `open`. Damage that only decoding finds, the speech and its quality are not checked.
        """
        if self.error is not None:
            raise self.error
        excerpt = Excerpt(self.start_s, self.end_s)
        with (
            open_audio(self.file, encoding=self.encoding, sample_rate=self.sample_rate) as reader,
            named(reader.name),
        ):
            if self.channel is not None:
                check_channel(self.channel, reader.channels)
            if not any(excerpt):
                return
            excerpt.check_not_empty(reader.sample_rate)
            frames = reader.frames
            if frames is None:  # some compressed formats have no length in the header
                frames = sum(len(block) for block in reader.blocks())
            excerpt.check_within(frames / reader.sample_rate)


def read_manifest(
    path: str | Path, *, s3_folder: str | Path | None = None, within: str | Path | None = None
) -> Iterator[ManifestRow]:
    """The rows of a manifest, read one at a time; rows without any value are left out.

    path: of a regular file, JSON Lines by the suffix .jsonl or .ndjson, a Voice ID job by .json, otherwise
        CSV (RFC 4180: separated by commas, quoted by "), in UTF-8, with or without a byte order mark.
    s3_folder: with copies of buckets, in which s3://BUCKET/KEY is the file BUCKET/KEY.
    within: folder outside which no recording is read, for a manifest that somebody else wrote: such a row has
        an error, also where a link in the folder leads out.

    A row that cannot be used is returned with its `error`, also one with an s3:// path without `s3_folder`.
    Raises `InvalidArgumentError` for a file that is missing or not a manifest, also midway: a line that is
    not UTF-8, an unknown, repeated or missing column, a quote that does not end.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    try:
        with open_regular(path) as stream:
            if suffix == _JOB_SUFFIX:
                rows = job_rows(stream, path)
            else:
                rows = (_json_rows if suffix in _JSON_SUFFIXES else _csv_rows)(_lines(stream, path), path)
            for row in rows:
                local = _with_local_path(row, s3_folder) if row.path.startswith(S3) else row
                yield local if within is None else _checked_within(local, Path(within))
    except RefusedFileError as error:
        raise InvalidArgumentError(f"{error} Give the path of a manifest.") from error
    except OSError as error:
        raise InvalidArgumentError(f"{path} cannot be read: {error.strerror or error}.") from error


def _with_local_path(row: ManifestRow, s3_folder: str | Path | None) -> ManifestRow:
    """A row of a recording in S3 with the path of its local copy, or with an error."""
    if row.error is not None:
        return row
    if s3_folder is None:
        fault = "copy the bucket to a folder (aws s3 sync), and give s3_folder (--s3-folder)."
    elif any(part in ("", ".", "..") for part in row.path.removeprefix(S3).split("/")) or "/" not in (
        row.path.removeprefix(S3)
    ):
        fault = "give s3://BUCKET/KEY."  # and no path out of the folder
    else:
        # Absolute, because paths are relative to the manifest, and `s3_folder` is to the working directory.
        return row._replace(path=str(Path(s3_folder).absolute() / row.path.removeprefix(S3)))
    return row._replace(error=InvalidArgumentError(f"path is {shown(row.path)}: {fault}"))


def _checked_within(row: ManifestRow, folder: Path) -> ManifestRow:
    """The row, with an error where its recording is outside a folder."""
    if row.error is not None:
        return row
    try:
        is_within = row.file.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # a name that is too long, or links in a circle
        is_within = False
    if is_within:
        return row
    fault = f"path is {shown(row.path)}, which is outside the folder of recordings: give one inside."
    return row._replace(error=InvalidArgumentError(fault))


def _lines(stream: BinaryIO, path: Path) -> Iterator[str]:
    number = 0
    while line := stream.readline(_MAX_LINE_BYTES):
        number += 1
        if len(line) == _MAX_LINE_BYTES:
            raise _not_a_manifest(
                path, number, f"is longer than {_MAX_LINE_BYTES:,} bytes: no row needs so many"
            )
        if number == 1 and line.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise _not_a_manifest(path, number, "is UTF-16: save the file as UTF-8")
        try:
            # With its byte order mark, which spreadsheets write.
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise _not_a_manifest(
                path,
                number,
                f"is not UTF-8 (byte 0x{line[error.start]:02x}): save the file as UTF-8 (spreadsheets: "
                '"CSV UTF-8")',
            ) from None  # the error quotes the line


def _csv_rows(lines: Iterator[str], path: Path) -> Iterator[ManifestRow]:
    # Of the process; only raised, as other threads may read CSV too.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_METADATA_BYTES))
    reader = csv.reader(lines, strict=True)
    columns: list[str] | None = None
    line = 1
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise _not_a_manifest(path, line, f"and those after it are not CSV: {error}") from error
        if cells is None:
            break
        here, line = line, reader.line_num + 1
        if not any(cells):
            continue
        if columns is None:
            columns = _header(cells, path, here)
        elif len(cells) != len(columns):
            yield ManifestRow(
                here,
                path.parent,
                error=InvalidArgumentError(f"The row has {len(cells)} cells, and the header {len(columns)}."),
            )
        else:
            values = {name: cell for name, cell in zip(columns, cells, strict=True) if cell}
            yield _row(here, path.parent, values, _from_text)
    if columns is None:
        raise InvalidArgumentError(f"{path} is empty: it needs a header, such as caller_id,path.")


def _header(cells: list[str], path: Path, line: int) -> list[str]:
    columns = [cell.strip() for cell in cells]
    if len(columns) == 1 and (found := re.search("[;\t]", columns[0])):
        separator = "semicolons" if found[0] == ";" else "tabs"
        raise _not_a_manifest(path, line, f"has {separator} between the columns: separate them by commas")
    before: set[str] = set()
    for column in columns:
        fault = _unknown(column, "column")
        if fault is None and column in before:
            fault = f"The column {column!r} is there twice: remove one of them."
        if fault is not None:
            raise InvalidArgumentError(f"{path}, line {line}: {fault}")
        before.add(column)
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        raise InvalidArgumentError(
            f"{path}, line {line}: the header has no column {missing[0]}. It needs {' and '.join(REQUIRED)}; "
            f"further columns are {', '.join(COLUMNS[2:])} and {METADATA}KEY."
        )
    return columns


def _json_rows(lines: Iterator[str], path: Path) -> Iterator[ManifestRow]:
    for line, text in enumerate(lines, 1):
        if not text.strip():
            continue
        try:
            values = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            # Without the text, which may hold metadata; of JSON's own errors, the reason and the place.
            reason = str(error) if isinstance(error, InvalidArgumentError) else _json_reason(error)
            yield ManifestRow(
                line, path.parent, error=InvalidArgumentError(f"The line is not JSON: {reason}.")
            )
            continue
        if not isinstance(values, dict):
            fault = f"The line is {_json_kind(values)}: JSON Lines has an object a line."
            yield ManifestRow(line, path.parent, error=InvalidArgumentError(fault))
            continue
        yield _row(
            line, path.parent, {name: item for name, item in values.items() if item is not None}, _as_is
        )


def job_rows(stream: BinaryIO, path: Path) -> Iterator[ManifestRow]:
    """The recordings of an enrollment or fraudster registration job of Amazon Connect Voice ID.

    The schema of its input files: {"SpeakerEnrollmentRequests": [{"SpeakerId": ..., "AudioSpecifications":
    [{"S3Uri": ..., "ChannelId": 0}]}]}; "FraudsterRegistrationRequests" have a RequestId in place of the
    SpeakerId. Raises `InvalidArgumentError` for another file.
    """
    try:
        job = json.load(stream, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, InvalidArgumentError) else _json_reason(error)
        raise InvalidArgumentError(f"{path} is not JSON: {reason}.") from None  # the error quotes the file
    found = [(key, name) for key, name in _JOBS.items() if isinstance(job, dict) and key in job]
    if len(found) != 1 or not isinstance(job[found[0][0]], list):
        raise InvalidArgumentError(
            f"{path} is no job of Voice ID, which has a list of {' or '.join(_JOBS)}: for JSON Lines, name "
            "the file .jsonl."
        )
    key, name = found[0]
    line = 0
    for request in job[key]:
        named_request = request if isinstance(request, dict) else {}
        recordings = named_request.get("AudioSpecifications")
        for recording in recordings if isinstance(recordings, list) and recordings else [None]:
            line += 1
            if not isinstance(recording, dict):
                fault = f"Request {line} has no AudioSpecifications: it needs S3Uri and ChannelId."
                yield ManifestRow(line, path.parent, error=InvalidArgumentError(fault))
                continue
            values = {
                "caller_id": named_request.get(name, ""),
                "path": recording.get("S3Uri", ""),
                "channel": recording.get("ChannelId"),
            }
            values = {column: value for column, value in values.items() if value is not None}
            yield _row(line, path.parent, values, _as_is)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = next(name for name, count in counts.items() if count > 1)
        raise InvalidArgumentError(f"the key {shown(twice)} is there twice in an object")
    return values


def _refuse_constant(name: str) -> None:
    raise InvalidArgumentError(f"{name} is no number of JSON")


def _json_reason(error: ValueError | RecursionError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg[0].lower()}{error.msg[1:]}, character {error.pos + 1}"
    return "it is nested too deeply" if isinstance(error, RecursionError) else "a number has too many digits"


def _json_kind(value: object) -> str:
    return "a list" if isinstance(value, list) else "a text" if isinstance(value, str) else repr(value)


_Convert = Callable[[str, Any], Any]


def _row(line: int, folder: Path, values: dict[str, Any], convert: _Convert) -> ManifestRow:
    """The row with these values, or with the error of all its faults."""
    faults: list[str] = []
    found: dict[str, Any] = {}

    def take(name: str, check: Callable[[Any], Any], value: object) -> None:
        try:
            found[name] = check(value)
        except (InvalidArgumentError, InvalidAudioError) as error:
            text = str(error)
            faults.append(text if text.endswith((".", "?")) else f"{text}.")

    take("caller_id", check_caller_id, values.get("caller_id", ""))
    take("path", _path, values.get("path", ""))
    for column, name, check in (
        ("channel", "channel", _channel),
        ("encoding", "encoding", check_encoding),
        ("rate", "sample_rate", _rate),
    ):
        if column in values:
            take(name, check, convert(column, values[column]))
    times = [convert(column, values.get(column)) for column in ("start", "end")]
    take("excerpt", lambda both: Excerpt.checked(*both), times)
    take("metadata", check_metadata, _metadata(values, faults))
    excerpt = found.pop("excerpt", Excerpt())
    row = ManifestRow(line, folder, start_s=excerpt.start_s, end_s=excerpt.end_s)._replace(**found)
    return row._replace(error=InvalidArgumentError(" ".join(faults))) if faults else row


def _metadata(values: dict[str, Any], faults: list[str]) -> object:
    """The metadata, not checked yet; adds the faults of the keys of a row to `faults`."""
    metadata = values.get("metadata")
    keys, unknown = {}, 0
    for name, value in values.items():
        if name == "metadata":
            continue
        fault = _unknown(name, "key")
        if fault is not None:
            unknown += 1
            if unknown <= _NAMED:
                faults.append(fault)
        elif name.startswith(METADATA):
            keys[name.removeprefix(METADATA)] = value
    if unknown > _NAMED:
        faults.append(f"{unknown - _NAMED} more keys have no meaning.")
    if not isinstance(metadata, dict):
        return metadata if metadata is not None else keys or None
    twice = metadata.keys() & keys.keys()
    if twice:
        faults.append(f"The key {shown(min(twice))} is in metadata, and there as {METADATA}KEY too.")
    return metadata | keys


def _unknown(name: str, kind: str) -> str | None:
    """The fault of a column or key without a meaning, with the most similar one that has one."""
    if name in COLUMNS or (name.startswith(METADATA) and name != METADATA):
        return None
    if not name:
        return f"There is a {kind} without a name: name it, or remove it."
    if name.startswith("metadata"):
        return (
            f"There is no {kind} {shown(name)}: metadata is in {kind}s {METADATA}KEY, such as {METADATA}name."
        )
    simple = re.sub(r"[^a-z]+", "_", name.lower()).strip("_")
    near = difflib.get_close_matches(simple, COLUMNS, n=1, cutoff=0.5)
    advice = f"did you mean {near[0]}?" if near else f"for metadata, name it {shown(METADATA + name)[1:-1]}."
    return f"There is no {kind} {shown(name)}: {advice}"


def _from_text(name: str, value: str | None) -> object:
    """The value of a CSV cell, or the text itself where it is none: the check names it."""
    # Python reads digits of all scripts, and 1_0 as ten.
    if value is None or name == "encoding" or not value.isascii() or "_" in value:
        return value
    try:
        return float(value) if name in ("start", "end") else int(value)
    except ValueError:
        return value


def _as_is(_name: str, value: object) -> object:
    return value


def _path(value: object) -> str:
    if not isinstance(value, str):
        raise InvalidArgumentError(f"path is {shown(value)}: give the path of a recording.")
    if not value:
        raise InvalidArgumentError("path is empty: give the path of a recording.")
    try:
        usable = b"\0" not in value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can escape
        usable = False
    if not usable:
        raise InvalidArgumentError(f"path is {shown(value)}, with characters that no file name has.")
    return value


def _channel(value: object) -> int:
    if not is_integer(value) or not 0 <= value < MAX_CHANNELS:
        raise InvalidArgumentError(f"channel is {shown(value)}: give one of 0 to {MAX_CHANNELS - 1}.")
    return value


def _rate(value: object) -> int:
    if isinstance(value, str):  # of a cell: the name and value that stand there
        raise InvalidArgumentError(f"rate is {shown(value)}: give the Hz, such as 8000.")
    return check_sample_rate(value)


def _not_a_manifest(path: Path, line: int, fault: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"{path}, line {line} {fault}.")
