"""The file format of the JSON store.

The file is one JSON object. Each caller is a line, keyed by the caller id, in the layout of codec.py, with
"revision", "embedding" and, where there is one, "augmented" beside the other fields of a voiceprint.

The empty key, which no caller can have, holds the data of the change feed:

    "": {"format": 6, "identity": "...", "revision": 7, "next_id": 4, "feed_floor": 0,
         "commits": [[5, "..."], [6, "..."]], "tombstones": [[6, 2]], "deletions": {"...": {"...": "...Z"}}}

"deletions" holds noted deletions (`base.Deletion`): key, digest and time. Format 6 is the first with
consents, opt-outs, groups and provenances. Formats 2 to 4 call "augmented" "simulated"; formats 2 and 3 have
neither "commits" nor "deletions".

In an encrypted store the header has "encryption", the mark of `sealing`, and a caller has no "metadata",
"consent", "opt_out" and "groups": "data_key" is the wrapped key and "sealed" holds these, and "embedding",
"augmented" and "provenance" of a voiceprint are sealed, all in Base64.

Files of OpusAgent (no empty key; one `embedding` per caller) are read as they are, and take this form with
the first change.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable
from typing import Any, NoReturn

import numpy as np
import orjson

from voiceprint.errors import InvalidArgumentError, StorageCorruptError
from voiceprint.models import RESEMBLYZER_SPACE
from voiceprint.storage.base import Deletion, Position
from voiceprint.storage.codec import (
    AUGMENTED,
    augmented_field,
    caller_entry,
    decode_details,
    decode_provenance,
    vector_fields,
)
from voiceprint.storage.deletions import check_deletion
from voiceprint.storage.records import COUNTER_END, LAST_COUNTED_ID, MAX_ID, CallerRecord, PrintRecord
from voiceprint.storage.sealed_codec import CallerSeals, StoreSeals
from voiceprint.storage.sealing import ForgottenKeyError, Sealing, SealingError, check_mark
from voiceprint.storage.state import StoreState
from voiceprint.storage.transaction import Transaction
from voiceprint.validation import (
    MAX_METADATA_DEPTH,
    check_augmented,
    check_caller_id,
    check_embedding,
    check_time,
    nesting_depth,
)

FORMAT = 6
_READABLE = (2, 3, 4, 5, 6)
_WITH_COMMITS = 4
_HEADER = ""


def encode_file(transaction: Transaction, lines: Iterable[bytes]) -> bytes:
    """The file after `transaction`; lines: of all callers, from `encode_caller`."""
    commits, tombstones, feed_floor = transaction.base.history_after(transaction)
    deletions: dict[str, dict[str, str]] = {}
    for (key, digest), time in transaction.all_deletions().items():
        deletions.setdefault(key, {})[digest] = time
    header = {
        "format": FORMAT,
        "identity": transaction.identity,
        "revision": transaction.revision,
        "next_id": transaction.next_id,
        "feed_floor": feed_floor,
        "commits": [[*commit] for commit in commits],
        "tombstones": tombstones,
        "deletions": deletions,
        **({"encryption": transaction.encryption} if transaction.encryption else {}),
    }
    return b"{\n" + b",\n".join([_entry(_HEADER, header), *lines]) + b"\n}\n"


def encode_caller(caller: CallerRecord, seals: StoreSeals) -> bytes:
    """The line of one caller."""
    if caller.data_key is not None:
        return _entry(caller.caller_id, _sealed_entry(caller, caller.data_key, seals))
    entry = caller_entry(
        caller, lambda print_: {"revision": print_.revision, **vector_fields(print_, lambda vector: vector)}
    )
    return _entry(caller.caller_id, entry)


def _sealed_entry(caller: CallerRecord, data_key: bytes, seals: StoreSeals) -> dict[str, Any]:
    seal = seals.of(caller.caller_id, data_key)

    def fields(print_: PrintRecord) -> dict[str, Any]:
        parts = {
            "embedding": seal.embedding(print_),
            AUGMENTED: seal.augmented(print_),
            "provenance": seal.provenance(print_),
        }
        return {name: _as_base64(part) for name, part in parts.items() if part is not None}

    return {
        "caller_id": caller.caller_id,
        "data_key": _as_base64(data_key),
        "sealed": _as_base64(seal.details(caller)),
        "created_at": caller.created_at,
        "last_seen": caller.last_seen,
        "voiceprints": [
            {
                "id": print_.id,
                "encoder": print_.encoder,
                "created_at": print_.created_at,
                "revision": print_.revision,
                **fields(print_),
            }
            for print_ in caller.voiceprints
        ],
    }


def _as_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _entry(key: str, value: dict[str, Any]) -> bytes:
    # orjson writes float32 with the fewest digits that read back as the same float32.
    return orjson.dumps(key) + b": " + orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def parse_file(content: bytes, path: str, sealing: Sealing | None = None) -> StoreState:
    """The state in the content of a file. sealing: of an encrypted store.

    Raises `StorageCorruptError`, naming the file and place, and `EncryptionKeyError`.
    """
    try:
        entries = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        # Without the text of the error: it may quote the content.
        _corrupt(
            path, f"is not JSON from line {error.lineno}, column {error.colno} on: it is damaged or cut off"
        )
    except RecursionError:
        _corrupt(path, "is nested too deep to be a store")
    if not isinstance(entries, dict):
        _corrupt(path, "does not hold a JSON object keyed by caller id")
    try:
        duplicate = _duplicate_key(content, len(entries))
    except RecursionError:
        _corrupt(path, "is nested too deep to be a store")
    if duplicate is not None:  # the next change would lose one of the two
        _corrupt(path, "is in the file twice", f"caller {duplicate[:40]!r}")
    header = entries.pop(_HEADER, None)
    if header is None:
        parser = _Parser(path, revision=1, next_id=1)
        return StoreState(
            parser.callers(entries),
            revision=1,
            next_id=parser.next_id,
            feed_floor=1,
            commits=[Position(1, _token_of(content))],
        )
    return _parse_with_header(header, entries, path, _token_of(content), sealing)


def _duplicate_key(content: bytes, entries: int) -> str | None:
    """A key that the outer object has more than once; the parser drops all but the last."""
    if content.count(b"\n") == entries + 2:  # a line each, as `encode_file` writes them
        return None
    # Numbers as text: Python limits the digits of an int.
    pairs: list[tuple[str, Any]] = json.loads(content, object_pairs_hook=list, parse_int=str, parse_float=str)
    keys: set[str] = set()
    for key, _ in pairs:
        if key in keys:
            return key
        keys.add(key)
    return None


def _token_of(content: bytes) -> str:
    """The token of a file without commits: a digest of its content, so that every process has the same."""
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def _parse_with_header(
    header: Any, entries: dict[str, Any], path: str, token: str, sealing: Sealing | None
) -> StoreState:
    if not isinstance(header, dict):
        _corrupt(path, 'has something other than an object under its "" key')
    form = header.get("format")
    if type(form) is not int or form not in _READABLE:
        _corrupt(
            path,
            f"has the format {str(form)[:20]!r}, and this version reads up to {FORMAT}: "
            "it was written by a newer version, or is damaged",
        )
    parser = _Parser(path, **{name: _whole(header, name, path) for name in ("revision", "next_id")})
    feed_floor = _whole(header, "feed_floor", path)
    if feed_floor > parser.revision:  # no follower could ever catch up
        _corrupt(path, f"remembers its changes from revision {feed_floor}, and has come to {parser.revision}")
    identity, tombstones = header.get("identity"), header.get("tombstones")
    if not isinstance(identity, str) or not identity:
        _corrupt(path, 'has no identity under its "" key')
    if not isinstance(tombstones, list) or not all(_is_tombstone(pair, parser) for pair in tombstones):
        _corrupt(path, 'has damaged tombstones under its "" key')
    if form < _WITH_COMMITS:
        commits, deletions = [Position(parser.revision, token)], []
    else:
        commits = _commits(header.get("commits"), feed_floor, parser.revision, path)
        deletions = _deletions(header.get("deletions"), path)
    mark = header.get("encryption", "")
    if not isinstance(mark, str):
        _corrupt(path, 'has an "encryption" that is not text under its "" key')
    try:
        check_mark(sealing, identity, mark)
    except SealingError as error:
        _corrupt(path, f'has a damaged "encryption" under its "" key: {error}')
    parser.seals = StoreSeals(sealing, lambda: identity, mark)
    callers = parser.callers(entries)
    if parser.newest > (commits[-1].revision if commits else 0):
        _corrupt(path, "has a voiceprint of a commit that is not among its commits")
    return StoreState(
        callers,
        identity=identity,
        revision=parser.revision,
        next_id=parser.next_id,
        feed_floor=feed_floor,
        commits=commits,
        tombstones=[(revision, id_) for revision, id_ in tombstones],
        deletions=deletions,
        encryption=mark,
        forgotten=parser.forgotten,
    )


def _commits(value: Any, feed_floor: int, revision: int, path: str) -> list[Position]:
    pairs: list[Any] = value if isinstance(value, list) else [None]
    last = max(0, feed_floor - 1)
    commits = []
    for pair in pairs:
        number, token = pair if isinstance(pair, list) and len(pair) == 2 else (None, None)
        if type(number) is not int or not isinstance(token, str) or not last < number <= revision:
            _corrupt(path, 'has damaged commits under its "" key')
        last = number
        commits.append(Position(number, token))
    return commits


def _deletions(value: Any, path: str) -> list[Deletion]:
    try:
        return [
            check_deletion(Deletion(key, digest, time))
            for key, noted in value.items()
            for digest, time in noted.items()
        ]
    except (AttributeError, InvalidArgumentError):  # not an object, or not of deletions
        _corrupt(path, 'has damaged deletions under its "" key')


def _is_tombstone(pair: Any, parser: _Parser) -> bool:
    return (
        isinstance(pair, list)
        and len(pair) == 2
        and all(type(number) is int for number in pair)
        and 0 <= pair[0] <= parser.revision
        and parser.was_given(pair[1])
    )


class _Parser:
    """Checks the callers of one file, and gives ids to voiceprints that have none yet."""

    def __init__(self, path: str, revision: int, next_id: int) -> None:
        self.path = path
        self.revision = revision
        self.next_id = next_id
        self._ids_end = next_id  # ids below are in the file
        self._ids: set[int] = set()
        self.newest = 0  # highest revision of a voiceprint
        self._dimensions: dict[str, int] = {}
        self.seals = StoreSeals(None, str)
        self.forgotten: list[str] = []

    def was_given(self, id_: int) -> bool:
        """Whether a store can have given this id, or imported it."""
        return 0 < id_ < self._ids_end or LAST_COUNTED_ID < id_ <= MAX_ID

    def callers(self, entries: dict[str, Any]) -> list[CallerRecord]:
        """The callers; those whose data key was forgotten are left out, and counted."""
        found = []
        with self.seals.prefetched(_data_key(entry) for entry in entries.values()):
            for key, entry in entries.items():
                try:
                    found.append(self._caller(key, entry))
                except ForgottenKeyError:
                    self.forgotten.append(key)
        return found

    def _caller(self, key: str, entry: Any) -> CallerRecord:
        place = f"caller {key[:40]!r}"
        if not isinstance(entry, dict):
            _corrupt(self.path, "is not an object", place)
        if entry.get("caller_id", key) != key:
            _corrupt(self.path, "holds the record of another caller", place)
        try:
            data_key = _from_base64(entry["data_key"]) if "data_key" in entry else None
            seals = self.seals.opening(key, data_key)
            entry = entry if seals is None else self._opened(entry, seals)
        except ForgottenKeyError:
            raise
        except SealingError as error:
            _corrupt(self.path, f"does not open: {error}", place)
        metadata = entry.get("metadata")
        if not isinstance(metadata, dict | None):
            _corrupt(self.path, "has metadata that is not an object", place)
        if metadata and nesting_depth(metadata) > MAX_METADATA_DEPTH:
            _corrupt(self.path, f"has metadata nested more than {MAX_METADATA_DEPTH} levels deep", place)
        prints = entry.get("voiceprints")
        if prints is None and "embedding" in entry:  # as OpusAgent writes it: one voiceprint, without an id
            prints = [{"embedding": entry["embedding"], "created_at": entry.get("created_at")}]
        if not isinstance(prints, list):
            _corrupt(self.path, "has no voiceprints", place)
        try:
            return CallerRecord(
                check_caller_id(key),
                metadata or {},
                check_time(entry.get("created_at")),
                check_time(entry.get("last_seen")),
                tuple(self._print(print_, place) for print_ in prints),
                *decode_details(entry),
                data_key=data_key,
            )
        except InvalidArgumentError as error:
            _corrupt(self.path, str(error), place)

    def _opened(self, entry: dict[str, Any], seals: CallerSeals) -> dict[str, Any]:
        """A sealed entry as a plain one. Raises `SealingError`."""
        prints = entry.get("voiceprints")
        opened = seals.open_details(_from_base64(entry.get("sealed")))
        return {
            **opened,
            "created_at": entry.get("created_at"),
            "last_seen": entry.get("last_seen"),
            "voiceprints": [self._opened_print(print_, seals) for print_ in prints]
            if isinstance(prints, list)
            else None,
        }

    @staticmethod
    def _opened_print(entry: Any, seals: CallerSeals) -> Any:
        if not isinstance(entry, dict) or type(entry.get("id")) is not int:
            return None
        id_, space = entry["id"], str(entry.get("encoder"))
        opened = {**entry, "embedding": None}
        for kind in ("embedding", AUGMENTED):
            if kind in entry:
                opened[kind] = seals.open_vector(kind, id_, space, _from_base64(entry[kind]))
        if "provenance" in entry:
            opened |= seals.open_provenance(id_, space, _from_base64(entry["provenance"]))
        return opened

    def _print(self, entry: Any, place: str) -> PrintRecord:
        if not isinstance(entry, dict):
            _corrupt(self.path, "has a voiceprint that is not an object", place)
        encoder = entry.get("encoder", RESEMBLYZER_SPACE)
        if not isinstance(encoder, str):
            _corrupt(self.path, "has a voiceprint of no named encoder", place)
        if not isinstance(entry.get("embedding"), list | np.ndarray):
            _corrupt(self.path, "has a voiceprint without an embedding", place)
        embedding = check_embedding(entry["embedding"], encoder)
        if self._dimensions.setdefault(encoder, embedding.size) != embedding.size:
            _corrupt(self.path, f"has an embedding of {embedding.size} values, unlike the others", place)
        if "id" in entry:
            id_, revision = _whole(entry, "id", self.path), _whole(entry, "revision", self.path)
            if not self.was_given(id_) or revision > self.revision:
                _corrupt(self.path, f"has the voiceprint id {id_}, which was not given out yet", place)
        elif self.next_id > LAST_COUNTED_ID:
            _corrupt(self.path, f"has a voiceprint without an id, and its next_id is {self.next_id}", place)
        else:
            id_, revision = self.next_id, self.revision
            self.next_id += 1
        if id_ in self._ids:
            _corrupt(self.path, f"has the voiceprint id {id_}, which another print has too", place)
        self._ids.add(id_)
        self.newest = max(self.newest, revision)
        augmented = check_augmented(augmented_field(entry), encoder, embedding)
        created_at = check_time(entry.get("created_at"))
        provenance = decode_provenance(entry)
        return PrintRecord(id_, revision, encoder, created_at, embedding, augmented, provenance)


def _data_key(entry: Any) -> bytes | None:
    """The wrapped data key of an entry; None for a plain or damaged one."""
    try:
        return _from_base64(entry["data_key"])
    except (KeyError, TypeError, SealingError):  # damage, which `_caller` reports
        return None


def _from_base64(text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError):
        raise SealingError("A field is not Base64.") from None


def _whole(entry: dict[str, Any], name: str, path: str) -> int:
    value = entry.get(name)
    if type(value) is not int or not 0 <= value < COUNTER_END:
        _corrupt(path, f"has no whole number where its {name} should be")
    return value


def _corrupt(path: str, what: str, place: str = "") -> NoReturn:
    subject = f"{path}: {place}" if place else path
    raise StorageCorruptError(f"{subject} {what.rstrip('.')}. The file was left as it is.")
