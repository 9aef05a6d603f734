"""The check of an SQL store: reads every record and compares the counters."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from sqlalchemy import case, delete, func, insert, select, update

from voiceprint import migrations
from voiceprint.errors import StorageCorruptError
from voiceprint.models import Finding
from voiceprint.storage.findings import EmbeddingLengths
from voiceprint.storage.records import COUNTER_END, LAST_COUNTED_ID
from voiceprint.storage.sql.database import Database
from voiceprint.storage.sql.reader import Reader
from voiceprint.storage.sql.tables import augmented, commits, store, tombstones, voiceprints
from voiceprint.storage.state import StoreState, new_token

_PAGE = 500

_STALE = (
    select(augmented.c.voiceprint_id)
    .join(voiceprints, voiceprints.c.id == augmented.c.voiceprint_id)
    .where(voiceprints.c.revision != augmented.c.revision)
)
# The voiceprint was replaced since. Any other difference is damage, which only a person can judge.
_OUTDATED = _STALE.where(
    voiceprints.c.revision > augmented.c.revision,
    voiceprints.c.revision <= select(store.c.revision).scalar_subquery(),
)


def examine(database: Database, limit: int, *, fix: bool) -> list[Finding]:
    """Findings on the schema, the counters and the records; fix: repair the counters, and remove augmented
    voiceprints that are no longer used."""
    findings = database.read(lambda reader: [*_schema(reader), *_spaces(reader)], [])
    counters = database.read(_counters, [])
    if counters and fix:
        database.write(_repair_counters)
        counters = database.read(_counters, [])
    findings += counters
    stale = database.read(_stale, [])
    if stale and fix:
        database.write(_remove_stale)
        stale = database.read(_stale, [])
    findings += stale
    after: str | None = ""
    while after is not None:
        page, after = database.read(partial(_records, after=after, limit=limit), ([], None))
        findings += page
    return findings


def _schema(reader: Reader) -> Iterator[Finding]:
    current = migrations.current(reader.connection)
    if current != migrations.HEAD:
        yield Finding(
            code="schema",
            place=reader.name,
            message=f"The schema is at revision {current}, and {migrations.HEAD} is right: open it again.",
        )


def _spaces(reader: Reader) -> Iterator[Finding]:
    lengths = EmbeddingLengths()
    size, id_ = func.length(voiceprints.c.embedding), voiceprints.c.id
    statement = select(voiceprints.c.encoder, size, func.min(id_), func.count())
    for space, length, lowest, count in reader.connection.execute(
        statement.group_by(voiceprints.c.encoder, size)
    ):
        lengths.add(str(space), int(length or 0) // 4, lowest, count)
    return lengths.findings()


def _newest(reader: Reader) -> tuple[int, int]:
    """The highest revision and the highest id given by counting, of all records."""
    revisions, ids = [0], [0]
    for revision, id_ in (
        (voiceprints.c.revision, voiceprints.c.id),
        (tombstones.c.revision, tombstones.c.voiceprint_id),
    ):
        counted = case((id_ <= LAST_COUNTED_ID, id_))
        row = reader.connection.execute(select(func.max(revision), func.max(counted))).one()
        revisions += [number for number in row[:1] if isinstance(number, int)]
        ids += [number for number in row[1:] if isinstance(number, int)]
    return max(revisions), max(ids)


def _counters(reader: Reader) -> list[Finding]:
    header = reader.header()
    revision, id_ = _newest(reader)
    findings = []
    last = reader.position().revision
    if last < revision:
        findings.append(f"The last commit is {last}, and a record has {revision}")
    if header["revision"] < revision:
        findings.append(f"The revision is {header['revision']}, and a record has {revision}")
    if header["next_id"] <= id_:
        findings.append(f"The next id is {header['next_id']}, and {id_} was given out")
    return [
        Finding(code="counter", place="table store", message=f"{problem}: repair it with `check --fix`.")
        for problem in findings
    ]


def _repair_counters(reader: Reader) -> None:
    header = reader.header()
    revision, id_ = _newest(reader)
    # Followers may have missed changes: the feed starts anew.
    revision = min(max(header["revision"], revision) + 1, COUNTER_END - 1)
    reader.connection.execute(
        update(store).values(revision=revision, feed_floor=revision, next_id=max(header["next_id"], id_ + 1))
    )
    reader.connection.execute(delete(commits))
    reader.connection.execute(insert(commits).values(revision=revision, token=new_token()))


def _stale(reader: Reader) -> list[Finding]:
    """Augmented voiceprints that do not belong to the present revision of their voiceprint."""
    return [
        Finding(
            code="stale",
            place=f"voiceprint {id_}",
            message="Its augmented voiceprint was stored with another revision of it and is not used. An "
            "older version of the library leaves one so: remove it with `check --fix`.",
        )
        for id_ in reader.connection.execute(_STALE.order_by(augmented.c.voiceprint_id)).scalars()
    ]


def _remove_stale(reader: Reader) -> None:
    reader.connection.execute(delete(augmented).where(augmented.c.voiceprint_id.in_(_OUTDATED)))


def _records(reader: Reader, after: str, limit: int) -> tuple[list[Finding], str | None]:
    """Findings on a page of callers, and the last of them, None at the end."""
    findings = []
    rows = reader.page_rows(after, _PAGE)
    for row, prints in reader.with_prints(rows):
        try:
            findings += StoreState([reader.rows.caller(row, prints)]).check(limit)
        except StorageCorruptError as error:
            place = f"caller {str(row['caller_id'])[:40]!r}"
            findings.append(Finding(code="corrupt", place=place, message=str(error)))
    last = rows[-1]["caller_id"] if len(rows) == _PAGE else None
    return findings, last if isinstance(last, str) else None
