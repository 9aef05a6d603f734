"""`voiceprint audit tail | query | verify | head`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from datetime import datetime, timezone
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from voiceprint.cli.common import (
    JsonOption,
    StoreOption,
    plural,
    print_error,
    print_json,
    print_lines,
    table,
)
from voiceprint.cli.gallery_options import chosen_settings
from voiceprint.errors import AuditError, ConfigurationError, InvalidArgumentError
from voiceprint.privacy.audit import AuditLog, Head, Line, audit_log, event_filter, verify_lines
from voiceprint.privacy.audit.auditor import IN_STORE
from voiceprint.privacy.encryption.opening import configured_store, open_store
from voiceprint.storage import Storage
from voiceprint.storage.memory import MemoryStorage
from voiceprint.storage.pruning import parse_period
from voiceprint.validation import check_time, format_time

app = typer.Typer(help="Read and verify the audit log (VOICE_AUDIT).", no_args_is_help=True)

LogOption = Annotated[
    Path | None,
    typer.Option(
        "--log", metavar="FILE", help="File of the log, rotated files beside it. Default: VOICE_AUDIT."
    ),
]
CountOption = Annotated[int, typer.Option("-n", min=1, help="Events to show.")]
AnchorOption = Annotated[
    list[str] | None,
    typer.Option(
        "--anchor",
        metavar="NUMBER:DIGEST",
        help="An earlier output of `voiceprint audit head`, kept elsewhere; may be repeated.",
    ),
]


@contextmanager
def open_log(path: Path | None, store: str | None) -> Iterator[AuditLog]:
    """The audit log of the options or the settings. Raises `ConfigurationError`, `AuditError`."""
    config = chosen_settings()
    if path is not None:
        config.audit = str(path)
    if config.audit is None:
        raise ConfigurationError("There is no audit log: set VOICE_AUDIT, or give --log FILE.")
    storage: Storage | None = None
    if config.audit == IN_STORE:
        storage = configured_store(config) if store is None else open_store(store, config)
    with nullcontext(MemoryStorage()) if storage is None else storage as opened:
        log = audit_log(opened, config)
        assert log is not None  # noqa: S101  the settings name one
        try:
            yield log
        except FileNotFoundError as error:
            raise AuditError(
                f"{log.place} does not exist: nothing was recorded yet, or VOICE_AUDIT or --log names "
                "another file."
            ) from error
        except OSError as error:
            reason = str(error.strerror or error).removesuffix(".")
            raise AuditError(f"{log.place} cannot be read: {reason}.") from error


@app.command("tail")
def tail(
    count: CountOption = 20, log: LogOption = None, store: StoreOption = None, as_json: JsonOption = False
) -> None:
    """Show the last events, the newest at the end.

    Exit code 1 when there is none.
    """
    bad = 0

    def good(texts: Iterator[bytes]) -> Iterator[Line]:
        nonlocal bad
        for text in texts:
            line = Line.parse(text)
            bad += line is None
            if line is not None:
                yield line

    with open_log(log, store) as opened:
        lines = [*islice(good(opened.backward()), count)][::-1]
    _show(lines, bad, as_json=as_json)


@app.command("query")
def query(
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Events from this time on: ISO 8601, or ago, such as 7d, 12w, 18m."
        ),
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Events before this time.")] = None,
    caller: Annotated[str | None, typer.Option(metavar="CALLER_ID", help="Events of this caller.")] = None,
    actor: Annotated[str | None, typer.Option(help="Events by this actor.")] = None,
    action: Annotated[
        list[str] | None, typer.Option(help="Events of this action, such as verify; may be repeated.")
    ] = None,
    verdict: Annotated[str | None, typer.Option(help="Events with this verdict, such as accepted.")] = None,
    correlation_id: Annotated[
        str | None, typer.Option(metavar="ID", help="Events with this correlation id.")
    ] = None,
    event_id: Annotated[
        str | None, typer.Option(metavar="ID", help="The event of this id, and the feedback to it.")
    ] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Operations that ended with an error.")] = False,
    count: Annotated[int | None, typer.Option("-n", min=1, help="Most events to show. Default: all.")] = None,
    log: LogOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the events that fulfill all conditions, the oldest first.

    Exit code 1 when there is none.
    """
    wanted = event_filter(
        actions=action or (),
        caller=caller,
        actor=actor,
        verdict=verdict,
        correlation_id=correlation_id,
        event_id=event_id,
        failed=failed,
        since=_time(since, "--since"),
        until=_time(until, "--until"),
    )
    with open_log(log, store) as opened:
        lines, bad = _matching(opened, wanted, count)
    _show(lines, bad, as_json=as_json)


def _matching(
    log: AuditLog, wanted: Callable[[dict[str, Any]], bool], count: int | None
) -> tuple[list[Line], int]:
    """The wanted lines, at most `count`, and the number of lines that are damaged."""
    found: list[Line] = []
    bad = 0
    for _, text in log.lines():
        line = Line.parse(text)
        if line is None:
            bad += 1
        elif wanted(line.fields):
            found.append(line)
            if len(found) == count:
                break
    return found, bad


def _time(text: str | None, option: str) -> str | None:
    """The time of an option in the form of the log."""
    if text is None:
        return None
    if re.fullmatch(r"\d+[a-z]", text.strip()):
        return format_time(datetime.now(timezone.utc) - parse_period(text))
    try:
        return check_time(text)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(
            f"{option} is {text!r}: give a time such as 2026-01-31T09:00:00Z, or a period such as 7d."
        ) from error


def _show(lines: list[Line], bad: int, *, as_json: bool) -> None:
    if as_json:
        print_json([{"line": line.seq} | line.fields for line in lines])
    elif lines:
        table(*_COLUMNS, rows=[_row(line) for line in lines], right=("Line", "Similarity", "FPIR", "Limit"))
    else:
        print_lines("No event is like that.")
    if bad:
        print_error(
            f"{plural(bad, 'line')} of the log cannot be read and {'is' if bad == 1 else 'are'} left out: "
            "see `voiceprint audit verify`."
        )
    if not lines:
        raise typer.Exit(1)


_COLUMNS = (
    "Line",
    "Time",
    "Action",
    "Caller",
    "Result",
    "Similarity",
    "FPIR",
    "Limit",
    "Actor",
    "Call",
    "Event",
)


def _row(line: Line) -> tuple[object, ...]:
    event = line.event
    result = event.error or event.verdict
    if result is None and event.correct is not None:
        result = "correct" if event.correct else "wrong"
    if result is None and event.count is not None:
        result = str(event.count)
    return (
        line.seq,
        f"{event.time[:10]} {event.time[11:19]}",
        event.action,
        event.caller or "",
        result or event.detail or "",
        "" if event.similarity is None else f"{event.similarity:.3f}",
        "" if event.fpir is None else f"{event.fpir:.2g}",
        "" if event.limit is None else f"{event.rule} {event.limit:g}",
        event.actor or "",
        event.correlation_id or "",
        event.about or event.event_id,
    )


@app.command("verify")
def verify(
    anchor: AnchorOption = None,
    log: LogOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Verify the chain of all lines: changed, missing, moved, repeated and cut lines are named by number.

    Without an anchor from elsewhere, the chain cannot show that its end was cut off, nor that all of it was
    written anew by someone who can write to the log.

    Exit code 1 when a fault is found.
    """
    anchors = [Head.parse(text) for text in anchor or ()]
    with open_log(log, store) as opened:
        report = verify_lines(opened.lines(), anchors)
        place = opened.place
    if as_json:
        print_json(
            asdict(report)
            | {"head": str(report.head), "faults": [fault._asdict() for fault in report.faults], "log": place}
        )
    else:
        for where in report.cut_by_crash:
            print_lines(f"{where}: a crash cut this line. Only an anchor shows whether more was cut off.")
        if report.faults:
            rows = [(fault.code.replace("_", " "), fault.place, fault.message) for fault in report.faults]
            table("Fault", "Place", "What is wrong", rows=rows)
        else:
            first = f" from line {report.first}" if report.first not in (None, 1) else ""
            held = f"; {plural(report.anchors, 'anchor')} held" if anchors else ", without an anchor"
            print_lines(f"{plural(report.lines, 'line')}{first} in one chain{held}. Head: {report.head}")
    if report.faults:
        raise typer.Exit(1)


@app.command("head")
def head(log: LogOption = None, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Print the number and digest of the last line, to be kept elsewhere as an anchor for `verify`.

    Exit code 1 for an empty log.
    """
    with open_log(log, store) as opened:
        found = opened.head()
    if as_json:
        print_json({"line": found.seq, "digest": found.digest, "anchor": str(found)})
    else:
        print_lines(str(found))
    if not found.seq:
        raise typer.Exit(1)
