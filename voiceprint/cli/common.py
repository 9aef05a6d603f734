"""What the commands share: their options, the recogniser, and how results are shown."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import orjson
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

from voiceprint.config import VoiceFingerprintConfig
from voiceprint.recognizer import OpusAgentVoiceRecognizer
from voiceprint.storage import open_storage

StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="URL",
        help="json:PATH, sqlite:PATH, postgresql://USER@HOST/DATABASE, redis://HOST:PORT/DB or memory:. "
        "Default: the VOICE_* environment.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]

# Standard output carries results, standard error all else, so that a pipe gets results alone.
# Tables are as wide as they need to be, so that every row is one line: for the eye, grep and copying.
_out = Console(highlight=False, soft_wrap=True, width=10_000)
_err = Console(stderr=True, highlight=False, soft_wrap=True)


@contextmanager
def opened(store: str | None) -> Iterator[OpusAgentVoiceRecognizer]:
    """A recogniser on the store that `--store` or the environment names, closed at the end."""
    config = VoiceFingerprintConfig()
    storage = None
    if store is not None:
        storage = open_storage(store, max_voiceprints_per_caller=config.max_voiceprints_per_caller)
    recognizer = OpusAgentVoiceRecognizer(storage, config=config)
    with recognizer:
        yield recognizer


def ready(recognizer: OpusAgentVoiceRecognizer) -> OpusAgentVoiceRecognizer:
    """The recogniser once its index is there, with a bar on a terminal while it is built."""
    with counting("Building the index") as progress:
        recognizer.warm_up(progress=progress)
    return recognizer


def print_json(value: Any) -> None:
    """Print `value` as indented JSON."""
    typer.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())


def say(text: str) -> None:
    """Print a line of the result."""
    _out.print(Text(text))


def paragraph(text: str, bullet: str = "") -> None:
    """Print prose, in lines as long as the terminal is wide, at most 100."""
    width = min(shutil.get_terminal_size().columns, 100)
    lines = textwrap.fill(
        text,
        width,
        initial_indent=bullet,
        subsequent_indent=" " * len(bullet),
        break_long_words=False,
        break_on_hyphens=False,
    )
    _out.print(Text(lines))


def complain(text: str) -> None:
    """Print a line about something that went wrong to standard error."""
    _err.print(Text(text))


def counted(count: int, noun: str) -> str:
    """ "1 file", "2 files"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def table(*columns: str, rows: Iterable[Iterable[object]], right: Iterable[str] = ()) -> None:
    """Print a table; the columns named in `right` hold figures, and are set to the right."""
    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        shown.add_column(column, justify="right" if column in right else "left", no_wrap=True)
    for row in rows:
        # As Text: a caller id such as "[red]" is to be shown, not obeyed.
        shown.add_row(*[cell if isinstance(cell, Text) else Text(str(cell)) for cell in row])
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
