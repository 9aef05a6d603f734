"""The common options of the commands, the recognizer, and the output of results."""

from __future__ import annotations

import os
import shutil
import signal
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

from voiceprint.cli.gallery_options import chosen_settings
from voiceprint.cli.terminal import escaped, json_text
from voiceprint.errors import StorageUnavailableError
from voiceprint.identification.spaces import other_spaces
from voiceprint.privacy.encryption.opening import open_store
from voiceprint.recognizer import OpusAgentVoiceRecognizer
from voiceprint.storage import Storage

StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="URL",
        help="json:PATH, sqlite:PATH, postgresql://USER@HOST/DATABASE, redis://HOST:PORT/DB or memory:. "
        "Default: the VOICE_* environment.",
    ),
]
CreateOption = Annotated[bool, typer.Option("--create", help="Treat a store that does not exist as empty.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
ProcessesOption = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=256,
        metavar="N",
        help="Worker processes that read and embed; 0 for none. Default: one a core "
        "(VOICE_ENCODER_THREADS), and none for fewer than 100 recordings.",
    ),
]
SchedulerOption = Annotated[
    str | None,
    typer.Option(
        metavar="tcp://HOST:PORT",
        help="A dask scheduler (extra dask) whose workers, on any machines, read and embed instead; this "
        "process stores.",
    ),
]
ThresholdOption = Annotated[
    float | None, typer.Option(min=0, max=1, help="Cosine from which a match counts as accepted.")
]
GroupsOption = Annotated[
    list[str] | None,
    typer.Option("--group", metavar="GROUP", help="Search only the callers of this group; may be repeated."),
]
NotGroupsOption = Annotated[
    list[str] | None,
    typer.Option("--not-group", metavar="GROUP", help="Leave out the callers of this group."),
]


# Results go to standard output, all other text to standard error, so that a pipe receives results alone.
# Tables exceed the terminal's width, so that every row is one line, as grep and copying need it.
class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise  # called in the handler of the error, which `main` handles


_out = _Console(highlight=False, soft_wrap=True, width=10_000)
_err = _Console(stderr=True, highlight=False, soft_wrap=True)


@contextmanager
def open_recognizer(store: str | None, *, create: bool = False) -> Iterator[OpusAgentVoiceRecognizer]:
    """A recognizer on the store of `--store`, `--gallery` or the environment, closed at the end.

    create: whether the store need not exist. Raises `StorageUnavailableError`.
    """
    config = chosen_settings()
    storage = None if store is None else open_store(store, config)
    recognizer = OpusAgentVoiceRecognizer(storage, config=config)
    with recognizer:
        if not create:
            check_exists(recognizer.storage, "enroll a caller, or give --store")
        yield recognizer


def check_exists(storage: Storage, advice: str) -> None:
    """Raise `StorageUnavailableError` with the advice if the store does not exist."""
    if not storage.exists():
        kind, _, place = storage.location.partition(":")
        path = _shorten(place) if kind in ("json", "sqlite") else storage.location
        raise StorageUnavailableError(f"{path} does not exist: {advice}.")


def _shorten(path: str) -> str:
    """The path relative to the working folder, if it is below."""
    relative = os.path.relpath(path)
    return path if relative.startswith(os.pardir) else relative


def build_index(recognizer: OpusAgentVoiceRecognizer) -> None:
    """Load or build the recognizer's index, with a progress bar on a terminal."""
    with counter("Building the index") as progress:
        recognizer.warm_up(progress=progress)


def warn_of_other_spaces(recognizer: OpusAgentVoiceRecognizer) -> None:
    """Warn on standard error of callers who have voiceprints, and none of this encoder."""
    warning = other_spaces(recognizer.storage, recognizer.encoder.name)
    if warning is not None:
        print_error(warning)


def print_json(value: Any) -> None:
    """Print `value` as indented JSON."""
    typer.echo(json_text(value, sys.stdout.encoding or "utf-8"))


def print_lines(*lines: str) -> None:
    """Print lines of the result."""
    for line in lines:
        _out.print(Text(escaped(line)))


def paragraph(text: str, bullet: str = "") -> None:
    """Print prose, wrapped at the width of the terminal, at most 100."""
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


def print_error(text: str) -> None:
    """Print a line to standard error."""
    _err.print(Text(escaped(text)))


def plural(count: int, noun: str) -> str:
    """ "1 file", "2 files"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def percent(share: float) -> str:
    """A share with two digits, as "0.0046 %" or "70 %"; from 99.5 % on "100 %", not "1e+02 %"."""
    return "100 %" if share >= 0.995 else f"{100 * share:.2g} %"


def table(*columns: str, rows: Iterable[Iterable[object]], right: Iterable[str] = ()) -> None:
    """Print a table; right: the columns that are aligned to the right."""
    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        shown.add_column(column, justify="right" if column in right else "left", no_wrap=True)
    for row in rows:
        # As Text and escaped: a caller id such as "[red]" is no markup.
        shown.add_row(*[cell if isinstance(cell, Text) else Text(escaped(cell)) for cell in row])
    _out.print(shown, soft_wrap=False)


def track(description: str, items: list[Any]) -> Iterator[Any]:
    """Iterate over the items, with a progress bar on standard error if that is a terminal."""
    with _bar() as bar:
        yield from bar.track(items, description=description)


@contextmanager
def counter(description: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """A function that displays the number of items done, on standard error if that is a terminal."""
    with _bar() as bar:
        task = bar.add_task(description, total=total)
        yield lambda done: bar.update(task, completed=done)


@contextmanager
def stage_progress() -> Iterator[Callable[[str, int, int], None]]:
    """A function that displays a stage, the items done, and the items in all; each stage has a bar."""
    with _bar() as bar:
        tasks: dict[str, TaskID] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total)
            bar.update(tasks[stage], completed=done, total=total)

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
def spinner(description: str) -> Iterator[None]:
    """Display the description on a terminal during the work."""
    if not _err.is_terminal:
        yield
        return
    with _err.status(description):
        yield


@contextmanager
def stopping(after: str) -> Iterator[Callable[[], bool]]:
    """A function that returns whether Ctrl-C was pressed; a second Ctrl-C raises KeyboardInterrupt.

    after: the work that is finished first, for the message.
    """
    pressed = False

    def stop(*_: object) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True
        print_error(f"Stopping after {after}. Ctrl-C once more stops at once.")

    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:  # ignored, or handled elsewhere
        yield lambda: False
        return
    signal.signal(signal.SIGINT, stop)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)
