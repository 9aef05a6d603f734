"""What the commands share: their options, the recognizer, and how results are shown."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from voiceprint.cli.terminal import escaped, json_text
from voiceprint.config import VoiceFingerprintConfig
from voiceprint.errors import StorageUnavailableError
from voiceprint.identification.gallery import other_spaces
from voiceprint.recognizer import OpusAgentVoiceRecognizer
from voiceprint.storage import Storage, open_storage

StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="URL",
        help="json:PATH, sqlite:PATH, postgresql://USER@HOST/DATABASE, redis://HOST:PORT/DB or memory:. "
        "Default: the VOICE_* environment.",
    ),
]
CreateOption = Annotated[
    bool, typer.Option("--create", help="Take a store that does not exist for an empty one.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


# Standard output carries results, standard error all else, so that a pipe gets results alone.
# Tables are as wide as they need to be, so that every row is one line: for the eye, grep and copying.
class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise  # within the handler of the error, which is for `main`


_out = _Console(highlight=False, soft_wrap=True, width=10_000)
_err = _Console(stderr=True, highlight=False, soft_wrap=True)


@contextmanager
def opened(store: str | None, *, create: bool = False) -> Iterator[OpusAgentVoiceRecognizer]:
    """A recognizer on the store that `--store` or the environment names, closed at the end.

    create: whether the store may be one that is not there. Raises `StorageUnavailableError`.
    """
    config = VoiceFingerprintConfig()
    storage = None
    if store is not None:
        storage = open_storage(store, max_voiceprints_per_caller=config.max_voiceprints_per_caller)
    recognizer = OpusAgentVoiceRecognizer(storage, config=config)
    with recognizer:
        if not create:
            check_exists(recognizer.storage, "enroll a caller, or give --store")
        yield recognizer


def check_exists(storage: Storage, advice: str) -> None:
    """Raise `StorageUnavailableError` with the advice where the store is not there."""
    if not storage.exists():
        kind, _, place = storage.location.partition(":")
        path = _shortest(place) if kind in ("json", "sqlite") else storage.location
        raise StorageUnavailableError(f"{path} does not exist: {advice}.")


def _shortest(path: str) -> str:
    here = os.path.relpath(path)
    return path if here.startswith(os.pardir) else here


def ready(recognizer: OpusAgentVoiceRecognizer) -> OpusAgentVoiceRecognizer:
    """The recognizer once its index is there, with a bar on a terminal while it is built."""
    with counting("Building the index") as progress:
        recognizer.warm_up(progress=progress)
    return recognizer


def tell_of_other_spaces(recognizer: OpusAgentVoiceRecognizer) -> None:
    """Say on standard error if the store holds voiceprints that this encoder cannot compare."""
    told = other_spaces(recognizer.storage, recognizer.encoder.name)
    if told is not None:
        complain(told)


def print_json(value: Any) -> None:
    """Print `value` as indented JSON."""
    typer.echo(json_text(value, sys.stdout.encoding or "utf-8"))


def say(*lines: str) -> None:
    """Print lines of the result."""
    for line in lines:
        _out.print(Text(escaped(line)))


def paragraph(text: str, bullet: str = "") -> None:
    """Print prose, in lines as long as the terminal is wide, at most 100."""
    width = min(shutil.get_terminal_size().columns, 100)
    lines = textwrap.fill(
        escaped(text),
        width,
        initial_indent=bullet,
        subsequent_indent=" " * len(bullet),
        break_long_words=False,
        break_on_hyphens=False,
    )
    _out.print(Text(lines))


def complain(text: str) -> None:
    """Print a line about something that went wrong to standard error."""
    _err.print(Text(escaped(text)))


def counted(count: int, noun: str) -> str:
    """ "1 file", "2 files"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def percent(share: float) -> str:
    """A share as "0.0046 %" or "70 %", of two digits; from 99.5 % on "100 %", and not "1e+02 %"."""
    return "100 %" if share >= 0.995 else f"{100 * share:.2g} %"


def table(*columns: str, rows: Iterable[Iterable[object]], right: Iterable[str] = ()) -> None:
    """Print a table; the columns named in `right` hold figures, and are set to the right."""
    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        shown.add_column(column, justify="right" if column in right else "left", no_wrap=True)
    for row in rows:
        # As Text and escaped: a caller id such as "[red]" is to be shown, not obeyed.
        shown.add_row(*[cell if isinstance(cell, Text) else Text(escaped(cell)) for cell in row])
    _out.print(shown, soft_wrap=False)


def progress(description: str, items: list[Any]) -> Iterator[Any]:
    """The items, with a bar on standard error, if that is a terminal, while they are worked through."""
    with _bar() as bar:
        yield from bar.track(items, description=description)


@contextmanager
def counting(description: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """A function to be told how many items are done, with a bar on standard error if that is a terminal."""
    with _bar() as bar:
        task = bar.add_task(description, total=total)
        yield lambda done: bar.update(task, completed=done)


@contextmanager
def stages() -> Iterator[Callable[[str, int, int], None]]:
    """A function to be told what is being done, how many are done, and of how many; a bar for each what."""
    with _bar() as bar:
        tasks: dict[str, TaskID] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done, total=total)

        yield show


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=_err,
        transient=True,
        disable=not _err.is_terminal,
    )


@contextmanager
def working(description: str) -> Iterator[None]:
    """Says on a terminal what is going on while it lasts."""
    if not _err.is_terminal:
        yield
        return
    with _err.status(description):
        yield
