"""`voiceprint enroll`, `voiceprint enroll-dir` and `voiceprint reenroll`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from voiceprint.audio import SAMPLE_RATE, Recording
from voiceprint.audio.io import folders
from voiceprint.audio.prompts import KnownPrompts
from voiceprint.cli.audio import ChannelOption, EncodingOption, Files, RateOption, caller_folders, read
from voiceprint.cli.common import (
    JsonOption,
    StoreOption,
    open_recognizer,
    plural,
    print_error,
    print_json,
    print_lines,
    stopping,
    table,
    track,
)
from voiceprint.cli.metadata import VALUE_HELP, parse_metadata
from voiceprint.cli.prompts import distinct, find_prompts
from voiceprint.enrollment.check import OnSeveralVoices
from voiceprint.enrollment.enroller import Keep
from voiceprint.enrollment.writer import OnMismatch
from voiceprint.errors import (
    CallerNotFoundError,
    InvalidArgumentError,
    InvalidAudioError,
    RecordingNotUsedError,
    VoiceprintError,
)
from voiceprint.models import Voiceprint
from voiceprint.recognizer import OpusAgentVoiceRecognizer

LISTED = 10  # known recordings and prompts in a list; of more, only the number
_Reader = Callable[[Path], Recording]


@dataclass
class _Sample:
    """A file to enroll, and its result."""

    caller_id: str
    path: Path
    metadata: dict[str, Any] | None = None
    result: Voiceprint | VoiceprintError | None = None
    skipped: bool = False
    known: bool = False  # the caller had a voiceprint of this recording before

    @property
    def failed(self) -> bool:
        return isinstance(self.result, VoiceprintError) and not isinstance(self.result, RecordingNotUsedError)


MismatchOption = Annotated[
    OnMismatch,
    typer.Option(
        help="Store (with a warning) or refuse a voiceprint that is unlike the caller's others: it may be "
        "another person's.",
    ),
]


SeveralVoicesOption = Annotated[
    OnSeveralVoices,
    typer.Option(
        help="Refuse a recording of several voices, enroll it as one voice, or enroll the voice that speaks "
        "most.",
    ),
]


def enroll(
    caller_id: Annotated[str, typer.Argument(metavar="CALLER_ID")],
    files: Files,
    metadata: Annotated[
        list[str] | None,
        typer.Option("--metadata", metavar="KEY=VALUE", help=f"{VALUE_HELP} May be repeated."),
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

    A recording is not stored twice for a caller.

    Exit code 1 when a file could not be enrolled.
    """
    fields = parse_metadata(metadata or [])
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
        bool, typer.Option("--again", help="Enroll also callers who have voiceprints already.")
    ] = False,
    on_mismatch: MismatchOption = "store",
    on_several_voices: SeveralVoicesOption = "refuse",
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Enroll every caller of a folder: DIR/CALLER/*, of every audio format.

    Of a caller with more recordings than voiceprints (VOICE_MAX_VOICEPRINTS_PER_CALLER, 3), those that agree
    best are enrolled: repeatedly, the recording least similar to the others is left out, of two equals the
    one of lower quality. Unused recordings are listed.

    Prompts, which occur in recordings of three callers or more, are left out (see `voiceprint prompts`).

    Callers who have voiceprints already are skipped. Ctrl-C stops after the current caller; the same command
    resumes there.

    Exit code 1 when a file could not be enrolled, is no recording, or is in no caller's folder: such files
    are listed with the reason. Hidden files are ignored. Exit code 130 after Ctrl-C.
    """
    reader = partial(read, encoding=encoding, rate=rate, channel=channel)
    _enroll_folder(folder, reader, store, as_json, on_mismatch, on_several_voices, again=again)


def reenroll(
    encoder: Annotated[
        str, typer.Option(metavar="ENCODER", help="The encoder to move to, as VOICE_ENCODER.")
    ],
    audio_dir: Annotated[
        Path, typer.Option(metavar="DIR", help="With a folder per caller: DIR/CALLER/*.wav")
    ],
    encoding: EncodingOption = None,
    rate: RateOption = None,
    channel: ChannelOption = None,
    again: Annotated[
        bool, typer.Option("--again", help="Enroll also callers who have voiceprints of that encoder.")
    ] = False,
    on_mismatch: MismatchOption = "store",
    on_several_voices: SeveralVoicesOption = "refuse",
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Enroll the callers of the store with another encoder, from recordings that were kept.

    Only callers who are enrolled already: a folder of anyone else is listed and left out. Their voiceprints
    of other encoders, metadata and the time of their last call stay. Recordings are chosen and prompts left
    out as in enroll-dir.

    Callers who have voiceprints of that encoder are skipped. Ctrl-C stops after the current caller; the same
    command resumes there. `voiceprint spaces` shows how many callers are left.

    Exit code 1 when a file could not be enrolled. Exit code 130 after Ctrl-C.
    """
    reader = partial(read, encoding=encoding, rate=rate, channel=channel)
    _enroll_folder(
        audio_dir, reader, store, as_json, on_mismatch, on_several_voices, again=again, encoder=encoder
    )


def _enroll_folder(
    folder: Path,
    read: _Reader,
    store: str | None,
    as_json: bool,
    on_mismatch: OnMismatch,
    on_several_voices: OnSeveralVoices,
    *,
    again: bool,
    encoder: str | None = None,
) -> None:
    """Enroll the recordings of DIR/CALLER/*, and list the files that are left out."""
    samples, left_out = _audio_files(folder)
    for path, why in left_out:
        print_error(f"Skipped: {path} {why}.")
    _enroll(
        samples,
        read,
        store,
        as_json,
        on_mismatch,
        on_several_voices,
        skip=not again,
        keep="best",
        without_prompts=True,
        encoder=encoder,
    )
    if left_out:
        raise typer.Exit(1)


def _audio_files(folder: Path) -> tuple[list[_Sample], list[tuple[Path, str]]]:
    """The recordings of DIR/CALLER/*, and the other files, each with the reason why it is left out."""
    callers = caller_folders(folder)
    samples: list[_Sample] = []
    left_out = [
        (path, "is in no caller's folder, DIR/CALLER")
        for path in folders.sorted_files(folder)
        if folders.is_recording(path)
    ]
    for caller in callers:
        for path in folders.sorted_files(caller):
            if folders.is_recording(path):
                samples.append(_Sample(caller.name, path))
            else:
                left_out.append((path, folders.NOT_AUDIO))
        too_deep = "is a folder in a caller's: move its recordings up"
        left_out += [(deeper, too_deep) for deeper in caller_folders(caller) if any(deeper.iterdir())]
    if not samples:
        raise InvalidArgumentError(
            f"{str(folder)!r} holds no audio: it needs a folder per caller, DIR/CALLER/*.wav (or .flac, "
            ".ogg, .mp3 and the like)."
        )
    return samples, left_out


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
    encoder: str | None = None,
) -> None:
    """encoder: to enroll again with, callers of the store only."""
    with open_recognizer(store, create=encoder is None) as recognizer, stopping("this caller") as stopped:
        if encoder is not None:
            recognizer = recognizer.with_encoder(encoder)
            _refuse_strangers(recognizer, samples)
        limit = recognizer.config.max_voiceprints_per_caller
        prints = _prints(recognizer, samples)
        if skip:
            _skip_enrolled(samples, prints, limit)
        to_enroll = [sample for sample in samples if not sample.skipped and not sample.failed]
        shared = _shared_prompts(to_enroll, read) if without_prompts else None
        readable: list[_Sample] = []
        results = recognizer.enroll_many(
            _recordings(to_enroll, readable, read, stopped, shared),
            on_mismatch=on_mismatch,
            on_several_voices=on_several_voices,
            keep=keep,
            enrolled_only=encoder is not None,
        )
        for sample, result in zip(readable, results, strict=True):
            sample.result = result
    _mark_known(samples, prints)
    _report(samples, limit, as_json)
    if stopped():
        left = len({sample.caller_id for sample in samples if sample.result is None and not sample.skipped})
        print_error(
            f"Interrupted. What is enrolled stays; {plural(left, 'caller')} are left. "
            "To go on, run the same command again: it skips callers who are enrolled."
        )
        raise typer.Exit(130)


def _refuse_strangers(recognizer: OpusAgentVoiceRecognizer, samples: list[_Sample]) -> None:
    """Give the samples of callers who are not enrolled their error."""
    enrolled: dict[str, bool] = {}
    for sample in samples:
        caller_id = sample.caller_id
        if caller_id not in enrolled:
            enrolled[caller_id] = recognizer.get_caller(caller_id) is not None
        if not enrolled[caller_id]:
            sample.result = CallerNotFoundError(f"The caller {caller_id!r} is not enrolled.")


def _prints(recognizer: OpusAgentVoiceRecognizer, samples: list[_Sample]) -> dict[str, set[int | None]]:
    """The ids of each caller's voiceprints of this encoder."""
    found = {}
    for caller_id in dict.fromkeys(sample.caller_id for sample in samples):
        caller = recognizer.get_caller(caller_id)
        prints = caller.voiceprints if caller is not None else ()
        found[caller_id] = {print_.id for print_ in prints if print_.encoder == recognizer.encoder.name}
    return found


def _mark_known(samples: list[_Sample], prints: dict[str, set[int | None]]) -> None:
    """Mark the samples with a voiceprint from before: of the store, or of an earlier sample."""
    for sample in samples:
        if isinstance(sample.result, Voiceprint):
            sample.known = sample.result.id in prints[sample.caller_id]
            prints[sample.caller_id].add(sample.result.id)


def _skip_enrolled(samples: list[_Sample], prints: dict[str, set[int | None]], limit: int) -> None:
    """Mark the samples of callers with voiceprints, and print callers with fewer of them than files."""
    files = Counter(sample.caller_id for sample in samples)
    enrolled = {caller_id: len(ids) for caller_id, ids in prints.items() if ids}
    for sample in samples:
        sample.skipped = sample.caller_id in enrolled
    fewer = [name for name, count in enrolled.items() if count < min(limit, files[name])]
    if enrolled:
        print_error(
            f"Skipped, as they have voiceprints already (--again): {plural(len(enrolled), 'caller')}."
        )
    if fewer:
        shown = ", ".join(fewer[:10]) + (", ..." if len(fewer) > 10 else "")
        print_error(f"Of these, with fewer voiceprints than files: {shown}.")


def _recordings(
    samples: list[_Sample],
    readable: list[_Sample],
    read: _Reader,
    stopped: Callable[[], bool],
    prompts: KnownPrompts | None,
) -> Iterator[tuple[str, Recording, dict[str, Any] | None]]:
    """The samples as arguments of `enroll_many`, read one at a time; appends readable ones to `readable`."""
    previous = None
    for sample in track("Enrolling", samples):
        # Stop only between callers: the next run would skip a partly enrolled caller.
        if stopped() and sample.caller_id != previous:
            return
        previous = sample.caller_id
        try:
            recording = read(sample.path)
        except InvalidAudioError as error:  # the result of this file; the others go on
            sample.result = error
        else:
            readable.append(sample)
            yield sample.caller_id, recording.leave_out(prompts), sample.metadata


def _shared_prompts(samples: list[_Sample], read: _Reader) -> KnownPrompts | None:
    """The prompts in recordings of several callers, which are printed to standard error."""
    found = find_prompts([(sample.caller_id, sample.path) for sample in samples], read)
    if not found:
        return None
    audios = distinct(found, read)
    lengths = ", ".join(f"{len(audio) / SAMPLE_RATE:.1f} s" for audio in audios[:LISTED])
    print_error(
        f"Left out of {plural(len(found), 'file')}: {plural(len(audios), 'prompt')} in recordings of several "
        f"callers ({lengths}). `voiceprint prompts` lists and writes them."
    )
    return KnownPrompts(audios)


def _report(samples: list[_Sample], limit: int, as_json: bool) -> None:
    failed = [sample for sample in samples if sample.failed]
    if as_json:
        print_json([_as_json(sample) for sample in samples])
    else:
        enrolled = Counter(s.caller_id for s in samples if isinstance(s.result, Voiceprint) and not s.known)
        print_lines(f"Enrolled {plural(enrolled.total(), 'file')} for {plural(len(enrolled), 'caller')}.")
        known = [s for s in samples if s.known]
        if len(known) > LISTED:
            print_lines(f"Already enrolled with this recording: {plural(len(known), 'file')}.")
        for sample in known if len(known) <= LISTED else ():
            print_lines(f"{sample.path}: {sample.caller_id} is already enrolled with this recording.")
        if max(enrolled.values(), default=0) > limit:
            print_lines(f"Each caller keeps the newest {plural(limit, 'voiceprint')}.")
        unused = [s for s in samples if isinstance(s.result, RecordingNotUsedError)]
        if unused:
            print_lines("", f"{plural(len(unused), 'file')} not used, as others of the caller agree better:")
            table("Caller", "File", rows=[(s.caller_id, s.path) for s in unused])
        if failed:
            print_lines("", f"{plural(len(failed), 'file')} could not be enrolled:")
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
