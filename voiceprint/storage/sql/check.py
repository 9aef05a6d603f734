"""Reading every record of an SQL store to say what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from sqlalchemy import case, delete, func, insert, select, update

from voiceprint import migrations
from voiceprint.errors import StorageCorruptError
from voiceprint.models import Finding
from voiceprint.storage.records import COUNTER_END, LAST_COUNTED_ID, Records, new_token
from voiceprint.storage.sql.database import Database
from voiceprint.storage.sql.queries import Queries
from voiceprint.storage.sql.tables import commits, simulated, store, tombstones, voiceprints

_PAGE = 500

_STALE = (
    select(simulated.c.voiceprint_id)
    .join(voiceprints, voiceprints.c.id == simulated.c.voiceprint_id)
    .where(voiceprints.c.revision != simulated.c.revision)
)
# Where the voiceprint was replaced since. Any other difference is damage, and left for the user to look at.
_OUTDATED = _STALE.where(
    voiceprints.c.revision > simulated.c.revision,
    voiceprints.c.revision <= select(store.c.revision).scalar_subquery(),
)


def examine(database: Database, limit: int, *, fix: bool) -> list[Finding]:
    """All that is wrong with the schema, the counters and the records; `fix`: set the counters right,
    and remove the prints for simulated lines that are no longer used."""
    findings = database.read(lambda queries: [*_schema(queries), *_spaces(queries)], [])
    counters = database.read(_counters, [])
    if counters and fix:
        database.write(_set_counters_right)
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


def _schema(queries: Queries) -> Iterator[Finding]:
    current = migrations.current(queries.connection)
    if current != migrations.HEAD:
        yield Finding(
            code="schema",
            place=queries.name,
            message=f"The schema is at revision {current}, and {migrations.HEAD} is right: open it again.",
        )


def _spaces(queries: Queries) -> Iterator[Finding]:
    length = func.length(voiceprints.c.embedding)
    statement = select(voiceprints.c.encoder, func.min(length), func.max(length))
    for space, least, most in queries.connection.execute(statement.group_by(voiceprints.c.encoder)):
        if least != most:
            yield Finding(
                code="dimension",
                place=f"the space {str(space)[:100]!r}",
                message=f"Its embeddings have {least // 4} to {most // 4} values, and one length is right.",
            )


def _newest(queries: Queries) -> tuple[int, int]:
    """The highest revision, and the highest id that is counted to, that any record has."""
    revisions, ids = [0], [0]
    for revision, id_ in (
        (voiceprints.c.revision, voiceprints.c.id),
        (tombstones.c.revision, tombstones.c.voiceprint_id),
    ):
        counted = case((id_ <= LAST_COUNTED_ID, id_))
        row = queries.connection.execute(select(func.max(revision), func.max(counted))).one()
        revisions += [number for number in row[:1] if isinstance(number, int)]
        ids += [number for number in row[1:] if isinstance(number, int)]
    return max(revisions), max(ids)


def _counters(queries: Queries) -> list[Finding]:
    header = queries.header()
    revision, id_ = _newest(queries)
    findings = []
    last = queries.position().revision
    if last < revision:
        findings.append(f"The last commit is {last}, and a record has {revision}")
    if header["revision"] < revision:
        findings.append(f"The revision is {header['revision']}, and a record has {revision}")
    if header["next_id"] <= id_:
        findings.append(f"The next id is {header['next_id']}, and {id_} was given out")
    return [
        Finding(code="counter", place="table store", message=f"{what}: repair it with `check --fix`.")
        for what in findings
    ]


def _set_counters_right(queries: Queries) -> None:
    header = queries.header()
    revision, id_ = _newest(queries)
    # Whoever follows the store may have missed something: the feed starts anew.
    revision = min(max(header["revision"], revision) + 1, COUNTER_END - 1)
    queries.connection.execute(
        update(store).values(revision=revision, feed_floor=revision, next_id=max(header["next_id"], id_ + 1))
    )
    queries.connection.execute(delete(commits))
    queries.connection.execute(insert(commits).values(revision=revision, token=new_token()))


def _stale(queries: Queries) -> list[Finding]:
    """Prints for simulated lines that do not belong to the voiceprint beside them."""
    return [
        Finding(
            code="stale",
            place=f"voiceprint {id_}",
            message="Its print for simulated lines was stored with another revision of it and is not used. "
            "An older version of the library leaves one so: remove it with `check --fix`.",
        )
        for id_ in queries.connection.execute(_STALE.order_by(simulated.c.voiceprint_id)).scalars()
    ]


def _remove_stale(queries: Queries) -> None:
    queries.connection.execute(delete(simulated).where(simulated.c.voiceprint_id.in_(_OUTDATED)))


def _records(queries: Queries, after: str, limit: int) -> tuple[list[Finding], str | None]:
    """What is wrong with a page of callers, and the last of them, None at the end."""
    findings = []
    rows = queries.page_rows(after, _PAGE)
    for row, prints in queries.with_prints(rows):
        try:
            findings += Records([queries.record(row, prints)]).check(limit)
        except StorageCorruptError as error:
            place = f"caller {str(row['caller_id'])[:40]!r}"
            findings.append(Finding(code="corrupt", place=place, message=str(error)))
    last = rows[-1]["caller_id"] if len(rows) == _PAGE else None
    return findings, last if isinstance(last, str) else None
