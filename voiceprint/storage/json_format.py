"""What a JSON store's file holds.

It is one JSON object. Each caller is a line, keyed by the caller id:

    "alice": {"caller_id": "alice", "metadata": {...}, "created_at": "...Z", "last_seen": "...Z",
              "voiceprints": [{"id": 1, "revision": 1, "encoder": "resemblyzer", "created_at": "...Z",
                               "embedding": [...], "simulated": [...]}]}

"simulated" stands there only where a print has it.

The empty key, which no caller can have, holds what the change feed needs:

    "": {"format": 4, "identity": "...", "revision": 7, "next_id": 4, "feed_floor": 0,
         "commits": [[5, "..."], [6, "..."]], "tombstones": [[6, 2]], "deletions": {"...": {"...": "...Z"}}}

Formats 2 and 3 have neither "commits" nor "deletions". "deletions" holds, under the identity of a store and
the digest of a caller id, when that store deleted that caller, see `base.Deletion`.

Files of OpusAgent (no empty key; one `embedding` per caller) are read as they are, and take this form
with the first change.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, NoReturn

import orjson

from voiceprint.errors import InvalidArgumentError, StorageCorruptError
from voiceprint.models import RESEMBLYZER_SPACE
from voiceprint.storage.base import Deletion, Position
from voiceprint.storage.records import (
    COUNTER_END,
    LAST_COUNTED_ID,
    MAX_ID,
    CallerRecord,
    Change,
    PrintRecord,
    Records,
    check_deletion,
)
from voiceprint.validation import (
    MAX_METADATA_DEPTH,
    check_augmented,
    check_caller_id,
    check_embedding,
    check_time,
)

FORMAT = 4
_READ = (2, 3, 4)
_HEADER = ""


def encode_file(change: Change, callers: Sequence[tuple[CallerRecord, bytes]]) -> bytes:
    """The file after `change`: the header, and the lines of all callers, which are given with them."""
    commits, tombstones, feed_floor = change.history()
    deletions: dict[str, dict[str, str]] = {}
    for (key, digest), time in change.all_deletions().items():
        deletions.setdefault(key, {})[digest] = time
    header = {
        "format": FORMAT,
        "identity": change.identity,
        "revision": change.revision,
        "next_id": change.next_id,
        "feed_floor": feed_floor,
        "commits": [[*commit] for commit in commits],
        "tombstones": tombstones,
        "deletions": deletions,
    }
    return b"{\n" + b",\n".join([_entry(_HEADER, header), *(line for _, line in callers)]) + b"\n}\n"


def encode_caller(caller: CallerRecord) -> bytes:
    """The line of one caller."""
    return _entry(
        caller.caller_id,
        {
            "caller_id": caller.caller_id,
            "metadata": caller.metadata,
            "created_at": caller.created_at,
            "last_seen": caller.last_seen,
            "voiceprints": [
                {
                    "id": print_.id,
                    "revision": print_.revision,
                    "encoder": print_.encoder,
                    "created_at": print_.created_at,
                    "embedding": print_.embedding,
                    **({} if print_.augmented is None else {"simulated": print_.augmented}),
                }
                for print_ in caller.prints
            ],
        },
    )


def _entry(key: str, value: dict[str, Any]) -> bytes:
    # float32 is written in the fewest digits that give the same float32 again.
    return orjson.dumps(key) + b": " + orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def parse_file(content: bytes, path: str) -> Records:
    """The state that a file's content holds. Raises `StorageCorruptError`, naming the file and place."""
    try:
        entries = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        # Not the error's own text: it may quote the content.
        _corrupt(
            path, f"is not JSON from line {error.lineno}, column {error.colno} on: it is damaged or cut off"
        )
    except RecursionError:
        _corrupt(path, "is nested too deep to be a store")
    if not isinstance(entries, dict):
        _corrupt(path, "does not hold a JSON object keyed by caller id")
    try:
        twice = _named_twice(content, len(entries))
    except RecursionError:
        _corrupt(path, "is nested too deep to be a store")
    if twice is not None:  # one of the two would be lost with the next change
        _corrupt(path, "stands in the file twice", f"caller {twice[:40]!r}")
    header = entries.pop(_HEADER, None)
    if header is None:
        parser = _Parser(path, revision=1, next_id=1)
        return Records(
            parser.callers(entries),
            revision=1,
            next_id=parser.next_id,
            feed_floor=1,
            commits=[Position(1, _token_of(content))],
        )
    return _parse_with_header(header, entries, path, _token_of(content))


def _named_twice(content: bytes, entries: int) -> str | None:
    """A key of the outer object that is there more than once; a parser keeps only the last of them."""
    if content.count(b"\n") == entries + 2:  # a line each, as `encode_file` writes it
        return None
    # Numbers are of no interest here; as text they also have no limit of digits.
    pairs: list[tuple[str, Any]] = json.loads(content, object_pairs_hook=list, parse_int=str, parse_float=str)
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            return key
        seen.add(key)
    return None


def _token_of(content: bytes) -> str:
    """The token of a file that has no commits: the same for all who read it, and of no other file."""
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def _parse_with_header(header: Any, entries: dict[str, Any], path: str, token: str) -> Records:
    if not isinstance(header, dict):
        _corrupt(path, 'has something other than an object under its "" key')
    form = header.get("format")
    if type(form) is not int or form not in _READ:
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
    if form < FORMAT:
        commits, deletions = [Position(parser.revision, token)], []
    else:
        commits = _commits(header.get("commits"), feed_floor, parser.revision, path)
        deletions = _deletions(header.get("deletions"), path)
    callers = parser.callers(entries)
    if parser.newest > (commits[-1].revision if commits else 0):
        _corrupt(path, "has a voiceprint of a commit that is not among its commits")
    return Records(
        callers,
        identity=identity,
        revision=parser.revision,
        next_id=parser.next_id,
        feed_floor=feed_floor,
        commits=commits,
        tombstones=[(revision, id_) for revision, id_ in tombstones],
        deletions=deletions,
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
    """Checks and takes in the callers of one file, giving ids to prints that have none yet."""

    def __init__(self, path: str, revision: int, next_id: int) -> None:
        self.path = path
        self.revision = revision
        self.next_id = next_id
        self._given = next_id  # ids below were given out by a store, and stand in the file
        self._ids: set[int] = set()
        self.newest = 0  # revision of a voiceprint
        self._dimensions: dict[str, int] = {}

    def was_given(self, id_: int) -> bool:
        """Whether a store can have given this id, or taken it from another."""
        return 0 < id_ < self._given or LAST_COUNTED_ID < id_ <= MAX_ID

    def callers(self, entries: dict[str, Any]) -> list[CallerRecord]:
        return [self._caller(key, entry) for key, entry in entries.items()]

    def _caller(self, key: str, entry: Any) -> CallerRecord:
        place = f"caller {key[:40]!r}"
        if not isinstance(entry, dict):
            _corrupt(self.path, "is not an object", place)
        if entry.get("caller_id", key) != key:
            _corrupt(self.path, "holds the record of another caller", place)
        metadata = entry.get("metadata")
        if not isinstance(metadata, dict | None):
            _corrupt(self.path, "has metadata that is not an object", place)
        if metadata and depth(metadata) > MAX_METADATA_DEPTH:
            _corrupt(self.path, f"has metadata nested more than {MAX_METADATA_DEPTH} levels deep", place)
        prints = entry.get("voiceprints")
        if prints is None and "embedding" in entry:  # as OpusAgent writes it: one print, without an id
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
            )
        except InvalidArgumentError as error:
            _corrupt(self.path, str(error), place)

    def _print(self, entry: Any, place: str) -> PrintRecord:
        if not isinstance(entry, dict):
            _corrupt(self.path, "has a voiceprint that is not an object", place)
        encoder = entry.get("encoder", RESEMBLYZER_SPACE)
        if not isinstance(encoder, str):
            _corrupt(self.path, "has a voiceprint of no named encoder", place)
        if not isinstance(entry.get("embedding"), list):
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
        augmented = check_augmented(entry.get("simulated"), encoder, embedding)
        created_at = check_time(entry.get("created_at"))
        return PrintRecord(id_, revision, encoder, created_at, embedding, augmented)


def depth(value: Any) -> int:
    """How many lists and objects stand inside each other in `value`."""
    deepest, level = 0, [value]
    while level := [item for item in level if isinstance(item, dict | list)]:
        deepest += 1
        level = [item for held in level for item in (held.values() if isinstance(held, dict) else held)]
    return deepest


def _whole(entry: dict[str, Any], name: str, path: str) -> int:
    value = entry.get(name)
    if type(value) is not int or not 0 <= value < COUNTER_END:
        _corrupt(path, f"has no whole number where its {name} should be")
    return value


def _corrupt(path: str, what: str, place: str = "") -> NoReturn:
    subject = f"{path}: {place}" if place else path
    raise StorageCorruptError(f"{subject} {what.rstrip('.')}. The file was left as it is.")
