"""`voiceprint enroll` and `voiceprint enroll-dir`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from numpy.typing import NDArray

from voiceprint.audio.files import RAW_ENCODINGS
from voiceprint.cli.audio import ChannelOption, EncodingOption, Files, RateOption, mono
from voiceprint.cli.common import (
    JsonOption,
    StoreOption,
    counted,
    opened,
    print_json,
    progress,
    say,
    table,
)
from voiceprint.errors import InvalidArgumentError, InvalidAudioError, VoiceprintError
from voiceprint.models import Voiceprint
from voiceprint.recognizer import OpusAgentVoiceRecognizer

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", *RAW_ENCODINGS)
_Reader = Callable[[Path], tuple[NDArray[Any], int]]


@dataclass
class _Sample:
    """A file to enrol, and what became of it."""

    caller_id: str
    path: Path
    metadata: dict[str, Any] | None = None
    result: Voiceprint | VoiceprintError | None = None


def enroll(
    caller_id: Annotated[str, typer.Argument(metavar="CALLER_ID")],
    files: Files,
    metadata: Annotated[
        list[str] | None, typer.Option("--metadata", metavar="KEY=VALUE", help="May be repeated.")
    ] = None,
    encoding: EncodingOption = None,
    rate: RateOption = None,
    channel: ChannelOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Enrol a caller from one file or more, each a voiceprint of its own.

    Exit code 1 when a file could not be enrolled.
    """
    fields = _parse_metadata(metadata or [])
    samples = [_Sample(caller_id, path, fields) for path in files]
    _enrol(samples, lambda path: mono(path, encoding, rate, channel), store, as_json)


def enroll_dir(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="With a folder per caller: DIR/CALLER/*.wav")],
    encoding: EncodingOption = None,
    rate: RateOption = None,
    channel: ChannelOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Enrol every caller of a folder: DIR/CALLER/*.wav, .flac, .ogg or .mp3, or without a header.

    Exit code 1 when a file could not be enrolled; a table says which, and why.
    """
    samples = [_Sample(path.parent.name, path) for path in _audio_files(folder)]
    _enrol(samples, lambda path: mono(path, encoding, rate, channel), store, as_json)


def _parse_metadata(pairs: list[str]) -> dict[str, Any]:
    fields = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InvalidArgumentError(f"--metadata {pair!r} is not KEY=VALUE.")
        fields[key] = value
    return fields


def _audio_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InvalidArgumentError(f"{str(folder)!r} is not a folder.")
    files = sorted(path for path in folder.glob("*/*") if path.suffix.lower() in AUDIO_SUFFIXES)
    if not files:
        raise InvalidArgumentError(
            f"{str(folder)!r} holds no audio: it needs a folder per caller, DIR/CALLER/*.wav "
            f"(or {', '.join(AUDIO_SUFFIXES[1:])})."
        )
    return files


def _enrol(samples: list[_Sample], read: _Reader, store: str | None, as_json: bool) -> None:
    with opened(store, create=True) as recognizer:
        _enrol_all(recognizer, samples, read)
        limit = recognizer.config.max_voiceprints_per_caller
    _report(samples, limit, as_json)


def _enrol_all(recognizer: OpusAgentVoiceRecognizer, samples: list[_Sample], read: _Reader) -> None:
    """Enrol the samples in order, reading each file only when its turn comes."""
    for sample_rate, group in groupby(_loaded(samples, read), key=lambda loaded: loaded.sample_rate):
        taken: list[_Sample] = []
        results = recognizer.enroll_many(_as_taken(group, taken), sample_rate=sample_rate)
        for sample, result in zip(taken, results, strict=True):
            sample.result = result


class _Loaded(NamedTuple):
    sample: _Sample
    audio: NDArray[Any]
    sample_rate: int


def _loaded(samples: list[_Sample], read: _Reader) -> Iterator[_Loaded]:
    for sample in progress("Enrolling", samples):
        try:
            yield _Loaded(sample, *read(sample.path))
        except InvalidAudioError as error:  # the result of this file; the others go on
            sample.result = error


def _as_taken(
    group: Iterator[_Loaded], taken: list[_Sample]
) -> Iterator[tuple[str, NDArray[Any], dict[str, Any] | None]]:
    """What `enroll_many` takes, with a note of which samples it has taken."""
    for sample, audio, _ in group:
        taken.append(sample)
        yield sample.caller_id, audio, sample.metadata


def _report(samples: list[_Sample], limit: int, as_json: bool) -> None:
    failed = [sample for sample in samples if not isinstance(sample.result, Voiceprint)]
    if as_json:
        print_json([_as_json(sample) for sample in samples])
    else:
        enrolled = Counter(s.caller_id for s in samples if isinstance(s.result, Voiceprint))
        say(f"Enrolled {counted(enrolled.total(), 'file')} for {counted(len(enrolled), 'caller')}.")
        if max(enrolled.values(), default=0) > limit:
            say(f"Of each caller the newest {counted(limit, 'voiceprint')} are kept.")
        if failed:
            say("", f"{counted(len(failed), 'file')} could not be enrolled:")
            rows = [(s.caller_id, s.path, type(s.result).__name__, s.result) for s in failed]
            table("Caller", "File", "Error", "Why", rows=rows)
    if failed:
        raise typer.Exit(1)


def _as_json(sample: _Sample) -> dict[str, Any]:
    row: dict[str, Any] = {"caller_id": sample.caller_id, "file": str(sample.path)}
    if isinstance(sample.result, Voiceprint):
        return row | {"voiceprint_id": sample.result.id, "created_at": sample.result.created_at}
    return row | {"error": type(sample.result).__name__, "message": str(sample.result)}
