"""The chain of lines: every line has its number, the digest of the line before, and its own.

    {"seq":18,"prev":"<64 hex digits>", fields of the event, "hash":"<64 hex digits>"}

`hash` is the SHA-256 digest of all bytes of the line before `,"hash":`. A changed, missing, moved or repeated
line breaks the chain at its place. Whoever can write to the log can compute all later digests anew, or cut
its end: against that, keep the `Head` of the log elsewhere and give it to `verify_lines` as an anchor.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

import orjson

from voiceprint.errors import InvalidArgumentError
from voiceprint.privacy.audit.event import Event
from voiceprint.validation import shown

__all__ = ["ChainReport", "Fault", "Head", "Line", "verify_lines"]

logger = logging.getLogger(__name__)

_HASH: Final = re.compile(rb',"hash":"([0-9a-f]{64})"\}\Z')
_ZEROS: Final = "0" * 64


class Head(NamedTuple):
    """The last line of a log: its number, 0 of an empty log, and its digest."""

    seq: int = 0
    digest: str = _ZEROS

    def __str__(self) -> str:
        return f"{self.seq}:{self.digest}"

    @classmethod
    def parse(cls, text: str) -> Head:
        """The head in the text of `voiceprint audit head`. Raises `InvalidArgumentError`."""
        match = re.fullmatch(r"(\d{1,18}):([0-9a-f]{64})", text.strip())
        if match is None:
            raise InvalidArgumentError(
                f"The anchor is {shown(text)}: give NUMBER:DIGEST as `voiceprint audit head` printed it."
            )
        return cls(int(match[1]), match[2])


class Line(NamedTuple):
    """A line of the log whose own digest is right."""

    seq: int
    prev: str
    digest: str
    fields: dict[str, Any]

    @property
    def head(self) -> Head:
        """The head of a log that ends with this line."""
        return Head(self.seq, self.digest)

    @property
    def event(self) -> Event:
        """The event of the line."""
        return Event.of_fields(self.fields)

    @classmethod
    def parse(cls, text: bytes) -> Line | None:
        """The line, with or without its line break; None where it is not a line, or its digest is wrong."""
        text = text.removesuffix(b"\n")
        match = _HASH.search(text)
        if match is None or digest_of(text[: match.start()]) != match[1].decode():
            return None
        try:
            fields = orjson.loads(text)
            seq, prev = fields.pop("seq"), fields.pop("prev")
            del fields["hash"]
        except (orjson.JSONDecodeError, KeyError, AttributeError):  # a digest of something else
            return None
        return cls(seq, prev, match[1].decode(), fields) if isinstance(seq, int) else None


def digest_of(body: bytes) -> str:
    """The digest of a line, of its bytes before `,"hash":`."""
    return hashlib.sha256(body).hexdigest()


def chained(event: Event, head: Head) -> tuple[bytes, Head]:
    """The line of an event after `head`, with its line break, and the head with it."""
    body = b'{"seq":%d,"prev":"%s",%s' % (head.seq + 1, head.digest.encode(), event.to_json()[1:-1])
    digest = digest_of(body)
    return b'%s,"hash":"%s"}\n' % (body, digest.encode()), Head(head.seq + 1, digest)


def continued(found: Head, own: Head, place: str) -> Head:
    """The head from which a process goes on that has written up to `own`, in a log that ends with `found`.

    A log that was cut or replaced is continued from `own`: the lines that are gone then show as missing.
    """
    if found.seq > own.seq or found == own:
        return found
    logger.error(
        "The audit log %s ends with line %d, and this process has written up to line %d: it was cut or "
        "replaced. `voiceprint audit verify` names the lines.",
        place,
        found.seq,
        own.seq,
    )
    return own


def cut_line_detail(remains: bytes) -> str:
    """The `detail` of a `log_repaired` event, by which `verify_lines` recognizes the remains."""
    return f"sha256:{hashlib.sha256(remains).hexdigest()}"


FaultCode = Literal["changed", "broken_link", "missing", "moved", "repeated", "cut", "other_history"]


class Fault(NamedTuple):
    """A fault of the chain. first, last: the numbers of the lines; place: file and line where it shows."""

    code: FaultCode
    first: int
    last: int
    place: str
    message: str


@dataclass(frozen=True)
class ChainReport:
    """The result of a verification.

    lines: with a right digest. first, head: number of the first line, and the last line. faults: of the
    chain. cut_by_crash: places of lines that a crash cut, each named by the line after it. anchors: number
    of anchors that hold.
    """

    lines: int
    first: int | None
    head: Head
    faults: tuple[Fault, ...]
    cut_by_crash: tuple[str, ...]
    anchors: int


def verify_lines(lines: Iterable[tuple[str, bytes]], anchors: Iterable[Head] = ()) -> ChainReport:
    """Verify the chain of (place, line) in the order of the log, in one pass.

    A line has its line break, except where its file ends without one: a crash leaves at most one piece of a
    line there, and the next writer ends that piece and marks it. Every other line that cannot be read is a
    fault.

    anchors: heads of the log that were noted elsewhere. The one of the last line that was moved to an archive
    also proves the beginning of a log without these lines.
    """
    chain = _Chain({anchor.seq: anchor.digest for anchor in anchors})
    for place, text in lines:
        line = Line.parse(text)
        if line is None:
            chain.add_bad(place, text)
        else:
            chain.add(place, line)
    return chain.report()


class _Chain:
    def __init__(self, anchors: dict[int, str]) -> None:
        self._anchors = anchors
        self._faults: list[Fault] = []
        self._cut: list[str] = []
        self._gaps: list[tuple[int, int, str]] = []  # first, last and place of lines that may come later
        self._bad: list[tuple[str, bytes]] = []  # lines with a wrong digest, one after the other
        self._head = Head()
        self._first: int | None = None
        self._last_seq = 0  # the number of the last line, good or bad
        self._linked = True  # whether the last line is good, so that the next must link to it
        self._lines = self._held = 0

    def add_bad(self, place: str, text: bytes) -> None:
        """Add a line with a wrong digest."""
        self._bad.append((place, text))

    def add(self, place: str, line: Line) -> None:
        """Add a line with a right digest."""
        self._end_bad(line)
        self._lines += 1
        expected = self._last_seq + 1
        if self._first is None:
            self._first = line.seq
            if line.seq > 1 and self._anchors.get(line.seq - 1) == line.prev:
                self._held += 1  # the lines before are in an archive
                expected, self._head = line.seq, Head(line.seq - 1, line.prev)
        if line.seq > expected:
            self._gaps.append((expected, line.seq - 1, place))
        elif line.seq < expected:
            self._out_of_order(place, line)
            return
        elif self._linked and line.prev != self._head.digest:
            self._fault(
                "broken_link",
                max(line.seq - 1, 1),
                line.seq,
                place,
                f"line {line.seq} does not follow line {line.seq - 1}: one of the two was written anew",
            )
        self._check_anchor(place, line)
        self._head, self._last_seq, self._linked = line.head, line.seq, True

    def _check_anchor(self, place: str, line: Line) -> None:
        noted = self._anchors.get(line.seq)
        if noted == line.digest:
            self._held += 1
        elif noted is not None:
            message = f"line {line.seq} is not the line of the anchor: the log was written anew up to there"
            self._fault("other_history", line.seq, line.seq, place, message)

    def _out_of_order(self, place: str, line: Line) -> None:
        for index, (first, last, where) in enumerate(self._gaps):
            if first <= line.seq <= last:
                parts = [(first, line.seq - 1, where), (line.seq + 1, last, where)]
                self._gaps[index : index + 1] = [part for part in parts if part[0] <= part[1]]
                message = f"line {line.seq} stands after line {self._last_seq}"
                self._fault("moved", line.seq, line.seq, place, message)
                return
        self._fault("repeated", line.seq, line.seq, place, f"line {line.seq} is there more than once")

    def _end_bad(self, following: Line | None) -> None:
        """Judge the lines with a wrong digest before a good one."""
        if not self._bad:
            return
        places, texts = zip(*self._bad, strict=True)
        self._bad = []
        remains = b"".join(texts)
        detail = None if following is None else following.fields.get("detail")
        # The writer of a mark has noted the remains as they were, without a line break after a crash.
        piece_is_marked = detail == cut_line_detail(remains.removesuffix(b"\n"))
        marked = piece_is_marked or detail == cut_line_detail(remains)
        is_unfinished = piece_is_marked or not remains.endswith(b"\n")
        if len(texts) == 1 and is_unfinished and not _is_object(remains):
            self._cut.append(places[0])
            return
        for place, text in zip(places, texts, strict=True):
            expected = self._last_seq + 1
            number = _stated_number(text, expected, None if following is None else following.seq)
            self._fault("changed", number, number, place, f"line {number} was changed: its digest is wrong")
            if not marked:  # the writer of a mark has continued from the last good line
                if number > expected:
                    self._gaps.append((expected, number - 1, place))
                self._last_seq, self._linked = number, False

    def _fault(self, code: FaultCode, first: int, last: int, place: str, message: str) -> None:
        self._faults.append(Fault(code, first, last, place, message))

    def report(self) -> ChainReport:
        """The result after the last line."""
        self._end_bad(None)
        for first, last, place in self._gaps:
            which = f"line {first} is" if first == last else f"lines {first} to {last} are"
            self._fault("missing", first, last, place, f"{which} missing before line {last + 1}")
        ahead = max(self._anchors, default=0)
        if ahead > self._last_seq:
            first = self._last_seq + 1
            which = f"line {first} was" if first == ahead else f"lines {first} to {ahead} were"
            message = f"{which} cut off: the log ends with line {self._last_seq}, the anchor is of {ahead}"
            self._fault("cut", first, ahead, "the end", message)
        return ChainReport(
            self._lines, self._first, self._head, tuple(self._faults), tuple(self._cut), self._held
        )


def _is_object(text: bytes) -> bool:
    try:
        return isinstance(orjson.loads(text), dict)
    except orjson.JSONDecodeError:
        return False


def _stated_number(text: bytes, expected: int, following: int | None) -> int:
    """The number that a changed line states, if it fits between its neighbors; else the expected one."""
    match = re.match(rb'\{"seq":(\d{1,18}),', text)
    stated = int(match[1]) if match is not None else expected
    return stated if expected <= stated and (following is None or stated < following) else expected
