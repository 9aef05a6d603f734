"""`voiceprint enroll` and `voiceprint enroll-dir`."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from voiceprint.audio import SAMPLE_RATE, Recording
from voiceprint.audio.io import folders
from voiceprint.audio.prompts import KnownPrompts
from voiceprint.cli.audio import ChannelOption, EncodingOption, Files, RateOption, read
from voiceprint.cli.common import (
    JsonOption,
    StoreOption,
    complain,
    counted,
    opened,
    print_json,
    progress,
    say,
    table,
)
from voiceprint.cli.prompts import distinct, find_prompts
from voiceprint.enrollment.check import OnSeveralVoices
from voiceprint.enrollment.enroller import Keep
from voiceprint.enrollment.writer import OnMismatch
from voiceprint.errors import (
    InvalidArgumentError,
    InvalidAudioError,
    RecordingNotUsedError,
    VoiceprintError,
)
from voiceprint.models import Voiceprint
from voiceprint.recognizer import OpusAgentVoiceRecognizer

SHOWN = 10  # copies that are listed one by one; of more, only the number
_Reader = Callable[[Path], Recording]


@dataclass
class _Sample:
    """A file to enroll, and what became of it."""

    caller_id: str
    path: Path
    metadata: dict[str, Any] | None = None
    result: Voiceprint | VoiceprintError | None = None
    skipped: bool = False
    known: bool = False  # the caller was enrolled with this recording before

    @property
    def failed(self) -> bool:
        return isinstance(self.result, VoiceprintError) and not isinstance(self.result, RecordingNotUsedError)


MismatchOption = Annotated[
    OnMismatch,
    typer.Option(
        help="Store (with a warning) or refuse a voiceprint that does not sound like the caller's others: it "
        "may be another person's.",
    ),
]


SeveralVoicesOption = Annotated[
    OnSeveralVoices,
    typer.Option(
        help="Refuse a recording in which several voices speak, store it as if it were one, or enroll the "
        "voice that speaks most.",
    ),
]


def enroll(
    caller_id: Annotated[str, typer.Argument(metavar="CALLER_ID")],
    files: Files,
    metadata: Annotated[
        list[str] | None, typer.Option("--metadata", metavar="KEY=VALUE", help="May be repeated.")
    ] = None,
    encoding: EncodingOption = None,
    rate: RateOption = None,
    channel: ChannelOption = None,
    on_mismatch: MismatchOption = "store",
    on_several_voices: SeveralVoicesOption = "refuse",
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Enroll a caller from one file or more, each a voiceprint of its own.

    A recording that the caller is enrolled with already is not stored again.

    Exit code 1 when a file could not be enrolled.
    """
    fields = _parse_metadata(metadata or [])
    samples = [_Sample(caller_id, path, fields) for path in files]
    _enroll(
        samples,
        partial(read, encoding=encoding, rate=rate, channel=channel),
        store,
        as_json,
        on_mismatch,
        on_several_voices,
    )


def enroll_dir(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="With a folder per caller: DIR/CALLER/*.wav")],
    encoding: EncodingOption = None,
    rate: RateOption = None,
    channel: ChannelOption = None,
    again: Annotated[
        bool, typer.Option("--again", help="Enroll callers too who have voiceprints already.")
    ] = False,
    on_mismatch: MismatchOption = "store",
    on_several_voices: SeveralVoicesOption = "refuse",
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Enroll every caller of a folder: DIR/CALLER/*, of every format that is read.

    Of more recordings of a caller than are kept (VOICE_MAX_VOICEPRINTS_PER_CALLER, 3) those are enrolled that
    agree best: again and again the one least similar to the others is left out, of two alike the one of lower
    quality. Recordings that are not used are listed.

    Prompts, which recordings of three callers and more hold, are left out; `voiceprint prompts` lists them.

    Callers who have voiceprints already are skipped. Ctrl-C stops after the caller whose turn it is; the same
    command goes on from there.

    Exit code 1 when a file could not be enrolled, or was left out as it is no recording or not in a caller's
    folder: all of them are listed, with the reason. Hidden files are passed over. 130 after Ctrl-C.
    """
    samples, left_out = _audio_files(folder)
    for path, why in left_out:
        complain(f"Skipped: {path} {why}.")
    _enroll(
        samples,
        partial(read, encoding=encoding, rate=rate, channel=channel),
        store,
        as_json,
        on_mismatch,
        on_several_voices,
        skip=not again,
        keep="best",
        without_prompts=True,
    )
    if left_out:
        raise typer.Exit(1)


def _parse_metadata(pairs: list[str]) -> dict[str, Any]:
    fields = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InvalidArgumentError(f"--metadata {pair!r} is not KEY=VALUE.")
        fields[key] = value
    return fields


def _audio_files(folder: Path) -> tuple[list[_Sample], list[tuple[Path, str]]]:
    """The recordings of DIR/CALLER/*, and the files that are left out with the reason of each."""
    if not folder.is_dir():
        raise InvalidArgumentError(f"{str(folder)!r} is not a folder.")
    samples: list[_Sample] = []
    left_out = [
        (path, "lies in no caller's folder, DIR/CALLER")
        for path in folders.sorted_files(folder)
        if folders.is_recording(path)
    ]
    for caller in _folders(folder):
        for path in folders.sorted_files(caller):
            if folders.is_recording(path):
                samples.append(_Sample(caller.name, path))
            else:
                left_out.append((path, folders.NOT_AUDIO))
        too_deep = "is a folder in a caller's: move its recordings one up"
        left_out += [(deeper, too_deep) for deeper in _folders(caller) if any(deeper.iterdir())]
    if not samples:
        raise InvalidArgumentError(
            f"{str(folder)!r} holds no audio: it needs a folder per caller, DIR/CALLER/*.wav (or .flac, "
            ".ogg, .mp3 and the like)."
        )
    return samples, left_out


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not folders.is_hidden(path))


def _enroll(
    samples: list[_Sample],
    read: _Reader,
    store: str | None,
    as_json: bool,
    on_mismatch: OnMismatch,
    on_several_voices: OnSeveralVoices,
    *,
    skip: bool = False,
    keep: Keep = "newest",
    without_prompts: bool = False,
) -> None:
    with opened(store, create=True) as recognizer, _stopping() as stopped:
        limit = recognizer.config.max_voiceprints_per_caller
        prints = _prints(recognizer, samples)
        if skip:
            _skip_enrolled(samples, prints, limit)
        wanted = [sample for sample in samples if not sample.skipped]
        shared = _shared_prompts(wanted, read) if without_prompts else None
        _enroll_all(recognizer, wanted, read, stopped, on_mismatch, on_several_voices, keep, shared)
    _mark_known(samples, prints)
    _report(samples, limit, as_json)
    if stopped():
        left = len({sample.caller_id for sample in samples if sample.result is None and not sample.skipped})
        complain(
            f"Interrupted. What is enrolled stays; {counted(left, 'caller')} are left. "
            "To go on, run the same command again: it skips callers who are enrolled."
        )
        raise typer.Exit(130)


@contextmanager
def _stopping() -> Iterator[Callable[[], bool]]:
    """A function that says whether Ctrl-C was pressed, which ends the work in order. A second one ends it
    at once."""
    pressed = False

    def stop(*_: object) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True
        complain("Stopping after this caller. Ctrl-C once more stops at once.")

    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:  # it is ignored, or somebody else's to handle
        yield lambda: False
        return
    signal.signal(signal.SIGINT, stop)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)


def _prints(recognizer: OpusAgentVoiceRecognizer, samples: list[_Sample]) -> dict[str, set[int | None]]:
    """The ids of the voiceprints that the callers have, of this encoder."""
    found = {}
    for caller_id in dict.fromkeys(sample.caller_id for sample in samples):
        caller = recognizer.get_caller(caller_id)
        prints = caller.voiceprints if caller is not None else ()
        found[caller_id] = {print_.id for print_ in prints if print_.encoder == recognizer.encoder.name}
    return found


def _mark_known(samples: list[_Sample], prints: dict[str, set[int | None]]) -> None:
    """Mark the samples whose voiceprint was there before: in the store, or from an earlier sample."""
    for sample in samples:
        if isinstance(sample.result, Voiceprint):
            sample.known = sample.result.id in prints[sample.caller_id]
            prints[sample.caller_id].add(sample.result.id)


def _skip_enrolled(samples: list[_Sample], prints: dict[str, set[int | None]], limit: int) -> None:
    """Mark the samples of callers who have voiceprints, and name those who have fewer than files."""
    files = Counter(sample.caller_id for sample in samples)
    enrolled = {caller_id: len(ids) for caller_id, ids in prints.items() if ids}
    for sample in samples:
        sample.skipped = sample.caller_id in enrolled
    fewer = [name for name, count in enrolled.items() if count < min(limit, files[name])]
    if enrolled:
        complain(f"Skipped, as they have voiceprints already (--again): {counted(len(enrolled), 'caller')}.")
    if fewer:
        shown = ", ".join(fewer[:10]) + (", ..." if len(fewer) > 10 else "")
        complain(f"Of these, with fewer voiceprints than files: {shown}.")


def _enroll_all(
    recognizer: OpusAgentVoiceRecognizer,
    samples: list[_Sample],
    read: _Reader,
    stopped: Callable[[], bool],
    on_mismatch: OnMismatch,
    on_several_voices: OnSeveralVoices,
    keep: Keep,
    prompts: KnownPrompts | None,
) -> None:
    """Enroll the samples in order, reading each file only when its turn comes."""
    taken: list[_Sample] = []
    loaded = _loaded(samples, taken, read, stopped, prompts)
    results = recognizer.enroll_many(
        loaded, on_mismatch=on_mismatch, on_several_voices=on_several_voices, keep=keep
    )
    for sample, result in zip(taken, results, strict=True):
        sample.result = result


def _loaded(
    samples: list[_Sample],
    taken: list[_Sample],
    read: _Reader,
    stopped: Callable[[], bool],
    prompts: KnownPrompts | None,
) -> Iterator[tuple[str, Recording, dict[str, Any] | None]]:
    """The samples as `enroll_many` takes them; those that could be read are added to `taken`."""
    previous = None
    for sample in progress("Enrolling", samples):
        # Between two callers: one of whom a part is stored would be skipped the next time.
        if stopped() and sample.caller_id != previous:
            return
        previous = sample.caller_id
        try:
            recording = read(sample.path)
        except InvalidAudioError as error:  # the result of this file; the others go on
            sample.result = error
        else:
            taken.append(sample)
            yield sample.caller_id, recording.leave_out(prompts), sample.metadata


def _shared_prompts(samples: list[_Sample], read: _Reader) -> KnownPrompts | None:
    """The prompts that recordings of several callers hold, which are named to standard error."""
    found = find_prompts([(sample.caller_id, sample.path) for sample in samples], read)
    if not found:
        return None
    audios = distinct(found, read)
    lengths = ", ".join(f"{len(audio) / SAMPLE_RATE:.1f} s" for audio in audios[:SHOWN])
    complain(
        f"Left out of {counted(len(found), 'file')}: {counted(len(audios), 'prompt')} that recordings of "
        f"several callers hold ({lengths}). `voiceprint prompts` lists and writes them."
    )
    return KnownPrompts(audios)


def _report(samples: list[_Sample], limit: int, as_json: bool) -> None:
    failed = [sample for sample in samples if sample.failed]
    if as_json:
        print_json([_as_json(sample) for sample in samples])
    else:
        enrolled = Counter(s.caller_id for s in samples if isinstance(s.result, Voiceprint) and not s.known)
        say(f"Enrolled {counted(enrolled.total(), 'file')} for {counted(len(enrolled), 'caller')}.")
        known = [s for s in samples if s.known]
        if len(known) > SHOWN:
            say(f"Already enrolled with this recording: {counted(len(known), 'file')}.")
        for sample in known if len(known) <= SHOWN else ():
            say(f"{sample.path}: {sample.caller_id} is already enrolled with this recording.")
        if max(enrolled.values(), default=0) > limit:
            say(f"Of each caller the newest {counted(limit, 'voiceprint')} are kept.")
        unused = [s for s in samples if isinstance(s.result, RecordingNotUsedError)]
        if unused:
            say("", f"{counted(len(unused), 'file')} not used, as others of the caller agree better:")
            table("Caller", "File", rows=[(s.caller_id, s.path) for s in unused])
        if failed:
            say("", f"{counted(len(failed), 'file')} could not be enrolled:")
            rows = [(s.caller_id, s.path, type(s.result).__name__, s.result) for s in failed]
            table("Caller", "File", "Error", "Why", rows=rows)
    if failed:
        raise typer.Exit(1)


def _as_json(sample: _Sample) -> dict[str, Any]:
    row: dict[str, Any] = {"caller_id": sample.caller_id, "file": str(sample.path)}
    if isinstance(sample.result, Voiceprint):
        stored = {"voiceprint_id": sample.result.id, "created_at": sample.result.created_at}
        return row | stored | {"already_enrolled": sample.known}
    if sample.result is None:
        return row | {"skipped": sample.skipped}
    if not sample.failed:
        return row | {"not_used": str(sample.result)}
    return row | {"error": type(sample.result).__name__, "message": str(sample.result)}
