"""Callers from one store to another: exported as JSON Lines, imported, and copied directly.

An exported line is one caller in the layout of codec.py, with "embedding": [...] and, where there is one,
"augmented": [...]. Ids and times survive. Lines are in the code-point order of the caller ids, so two stores
of the same callers give the same text, and `digest` compares them. An encrypted export is a file that begins
with b"VPEXPORT" (`voiceprint.privacy.encryption.files`), with these lines in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO

import orjson

from voiceprint._audited import audited_store
from voiceprint.errors import EncryptionKeyError, InvalidArgumentError, StorageError
from voiceprint.models import Caller
from voiceprint.storage.base import DEFAULT_PAGE, Deletion, Progress, Storage
from voiceprint.storage.codec import caller_entry, decode_caller, vector_fields
from voiceprint.storage.deletions import DeletionList
from voiceprint.storage.sealing import FileCipher, SealedFileError

__all__ = ["CopyReport", "copy_callers", "digest", "export_callers", "import_callers"]


SEALED_KIND = b"VPEXPORT"
LONGEST_LINE = 64 << 20  # bytes: metadata may have 1 MB, and a caller many voiceprints


@dataclass(frozen=True)
class CopyReport:
    """Result of a copy.

    callers, voiceprints: in the target now as they were read. changed: callers that were written; the others
    were equal already. digest: of them, as by `digest`. left_out: callers who were read and not copied, as
    the target had deleted them after these copies were made.
    """

    callers: int
    voiceprints: int
    changed: int
    digest: str
    left_out: int = 0


class CallerCopy:
    """One copy of callers into `target`, which leaves out those whom `deleted` covers."""

    def __init__(self, target: Storage, *, include_deleted: bool) -> None:
        self.target = target
        self._had_callers = target.count_callers() > 0
        self._deleted = DeletionList(() if include_deleted else target.deletions())
        self._caller_ids: list[str] = []
        self._voiceprints = self._changed = self._left_out = 0
        self._read = hashlib.sha256()

    def report(self) -> CopyReport:
        """The counts so far."""
        return CopyReport(
            len(self._caller_ids),
            self._voiceprints,
            self._changed,
            self._read.hexdigest(),
            self._left_out,
        )

    def add(self, callers: Iterable[Caller], progress: Progress | None) -> None:
        """Restore the callers, which come in the order of their ids, a thousand in one change."""
        rest = iter(callers)
        while page := list(islice(rest, DEFAULT_PAGE)):
            wanted = [
                caller for caller in self._as_the_target_allows(page) if not self._deleted.covers(caller)
            ]
            self._left_out += len(page) - len(wanted)
            self._changed += self.target.restore_many(wanted) if wanted else 0
            for caller in wanted:
                self._caller_ids.append(caller.caller_id)
                self._voiceprints += len(caller.voiceprints)
                self._read.update(_encode(caller))
            if progress is not None:
                progress(len(self._caller_ids) + self._left_out)

    def _as_the_target_allows(self, page: list[Caller]) -> list[Caller]:
        """The callers without those who have opted out in the target, with the later of two consents.

        Only `opt_in` ends a refusal, and no older copy takes the place of what a caller has agreed to since.
        """
        if not self._had_callers:
            return page
        stored = self.target.get_callers([caller.caller_id for caller in page])
        allowed = []
        for caller in page:
            current = stored.get(caller.caller_id)
            if current is None or caller.opt_out is not None:
                allowed.append(caller)
            elif current.opt_out is None:
                allowed.append(_with_later_consent(caller, current))
        return allowed

    def verify(self, source: str, noted: Iterable[Deletion] = ()) -> set[Deletion]:
        """Compare the copied callers with those that the target holds now.

        Gives the `noted` deletions that concern callers of the target, who were enrolled again since.
        Raises `StorageError` where the callers differ; source: names their origin in the message.
        """
        stored = hashlib.sha256()
        deletions = DeletionList(noted)
        enrolled: set[Deletion] = set()
        wanted = iter(self._caller_ids)
        next_id = next(wanted, None)
        for caller in self.target.iter_callers():
            if deletions:
                enrolled.update(deletions.entries(caller.caller_id))
            if caller.caller_id == next_id:
                stored.update(_encode(caller))
                next_id = next(wanted, None)
        if stored.hexdigest() != self._read.hexdigest():
            raise StorageError(
                f"The callers in {self.target.location} are not those that were read from {source}: another "
                "process wrote to one of them meanwhile. Copy again."
            )
        return enrolled


def _with_later_consent(caller: Caller, current: Caller) -> Caller:
    consent, stored = caller.consent, current.consent
    if stored is None or (consent is not None and consent.obtained_at >= stored.obtained_at):
        return caller
    prints = [print_.model_copy(update={"consent": stored}) for print_ in caller.voiceprints]
    return caller.model_copy(update={"consent": stored, "voiceprints": tuple(prints)})


def is_export(head: bytes) -> bool:
    """Whether a file that begins with these bytes is an export."""
    return head.startswith((b'{"caller_id":', SEALED_KIND))


@audited_store("export")
def export_callers(storage: Storage, stream: BinaryIO, *, progress: Progress | None = None) -> int:
    """Write all callers to `stream`, a line each, and return their number. Passes on errors of the stream."""
    done = 0
    for caller in storage.iter_callers():
        stream.write(_encode(caller))
        done += 1
        if progress is not None:
            progress(done)
    return done


def exported_lines(stream: BinaryIO, name: str, cipher: FileCipher | None = None) -> Iterator[bytes]:
    """The lines of an export for `import_callers`, decrypted by `cipher` where it is encrypted.

    stream: a buffered one, also of a pipe. name: of the file, for messages. Raises `EncryptionKeyError`, and
    `InvalidArgumentError` where the file is damaged.
    """
    peek = getattr(stream, "peek", None)
    is_sealed = peek is not None and peek(len(SEALED_KIND)).startswith(SEALED_KIND)
    try:
        if is_sealed and cipher is None:
            raise EncryptionKeyError(f"{name} is encrypted: give its key or passphrase. Nothing was changed.")
        content = cipher.reading(stream, SEALED_KIND) if is_sealed and cipher is not None else stream
        # Limited, so that a file without line breaks does not fill the memory.
        while line := content.readline(LONGEST_LINE):
            yield line
    except SealedFileError as error:
        raise InvalidArgumentError(f"{name} is damaged: {error}.") from error


@audited_store("import")
def import_callers(
    storage: Storage,
    lines: Iterable[bytes],
    *,
    include_deleted: bool = False,
    progress: Progress | None = None,
) -> CopyReport:
    """Store the callers of exported lines, each in place of the caller of the same id.

    A thousand callers are one change. A bad line raises `InvalidArgumentError` with its number; the
    thousands before it are then stored, and importing again skips them. Callers who were deleted after the
    export are left out, unless `include_deleted`.
    """
    copy = CallerCopy(storage, include_deleted=include_deleted)
    copy.add(_decoded(lines), progress)
    return copy.report()


@audited_store("copy")
@audited_store("copy", argument=1)
def copy_callers(
    source: Storage, target: Storage, *, include_deleted: bool = False, progress: Progress | None = None
) -> CopyReport:
    """Copy all callers with their ids and times, and verify the copy by count and digest.

    Callers that the target has already are skipped, so calling again resumes an interrupted copy. Callers
    that only the target has stay. Callers whom the target has deleted since the source enrolled them are
    left out, unless `include_deleted`; deletions of the source are noted in the target. Raises
    `InvalidArgumentError` where ids of the source are other callers' in the target, `StorageError` where the
    copy differs from the callers read, as another process writes to the target.
    """
    if source.location == target.location:
        raise InvalidArgumentError(f"{source.location} is both source and target of the copy.")
    copy = CallerCopy(target, include_deleted=include_deleted)
    copy.add(source.iter_callers(), progress)
    noted = source.deletions()
    enrolled = copy.verify(source.location, noted)
    target.note_deletions(entry for entry in noted if entry not in enrolled)
    return copy.report()


def digest(storage: Storage) -> str:
    """A checksum (SHA-256, hexadecimal) of all callers: the same for stores of the same callers."""
    value = hashlib.sha256()
    for caller in storage.iter_callers():
        value.update(_encode(caller))
    return value.hexdigest()


def _encode(caller: Caller) -> bytes:
    entry = caller_entry(caller, lambda print_: vector_fields(print_, lambda vector: vector))
    # Keys sorted: not every store keeps the order of metadata, and it must not count in a digest.
    options = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE
    return orjson.dumps(entry, option=options)


def _decoded(lines: Iterable[bytes]) -> Iterator[Caller]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield _decode(line, number)


def _decode(line: bytes, number: int) -> Caller:
    try:
        entry = orjson.loads(line)
    except orjson.JSONDecodeError:  # not chained: its text may quote the line, which is biometric
        raise InvalidArgumentError(f"Line {number} is not JSON: it is damaged or cut off.") from None
    if not isinstance(entry, dict) or not isinstance(entry.get("voiceprints"), list):
        if isinstance(entry, dict) and "voiceprint_backup" in entry:
            raise InvalidArgumentError("This is a backup, not an export: use `voiceprint restore`.")
        raise InvalidArgumentError(f"Line {number} is not an exported caller.")
    try:
        return decode_caller(entry, lambda vector: vector)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"Line {number}: {error}") from error
