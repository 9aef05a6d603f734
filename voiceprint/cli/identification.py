"""`voiceprint identify` and `voiceprint verify`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypedDict

import typer

from voiceprint.cli.audio import FILE_HELP, ChannelOption, EncodingOption, Files, RateOption, read
from voiceprint.cli.common import (
    CreateOption,
    GroupsOption,
    JsonOption,
    NotGroupsOption,
    StoreOption,
    ThresholdOption,
    build_index,
    open_recognizer,
    percent,
    print_error,
    print_json,
    print_lines,
    table,
    warn_of_other_spaces,
)
from voiceprint.encoder.base import min_speech_s
from voiceprint.errors import AudioQualityError, InvalidAudioError, VoiceprintError
from voiceprint.models import Identification, Match, SeparatedVoice, Verdict, Verification, WatchHit

WatchOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="GROUP",
        help="Report every caller of this group whose voice it is, whatever the rest of the answer, by the "
        "group's target (VOICE_WATCH_TARGETS); may be repeated.",
    ),
]


class _Options(TypedDict):
    """Arguments of `recognizer.identify` with and without `separate`."""

    threshold: float | None
    candidates: list[str] | None
    ignore: Iterable[str]
    groups: list[str] | None
    not_groups: list[str]
    watch: list[str]


def identify(
    files: Files,
    k: Annotated[int, typer.Option("-k", min=1, help="Callers to name for each file.")] = 5,
    threshold: ThresholdOption = None,
    candidates: Annotated[
        list[str] | None,
        typer.Option(
            "--candidate",
            metavar="CALLER_ID",
            help="Search only these callers; may be repeated.",
        ),
    ] = None,
    ignore: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CALLER_ID",
            help="Never name these callers, such as agents; may be repeated. With --separate their voices "
            "are listed as ignored.",
        ),
    ] = None,
    groups: GroupsOption = None,
    not_groups: NotGroupsOption = None,
    watch: WatchOption = None,
    separate: Annotated[
        bool,
        typer.Option("--separate", help="Identify each voice of a file, such as both parties of a call."),
    ] = False,
    encoding: EncodingOption = None,
    rate: RateOption = None,
    channel: ChannelOption = None,
    store: StoreOption = None,
    create: CreateOption = False,
    as_json: JsonOption = False,
) -> None:
    """Name the likeliest callers for each file, the best first.

    LLR: natural logarithm of how much likelier the audio is if this caller spoke than if a stranger did.
    FPIR: share of strangers' calls that would score as high with some caller.

    With --watch, hits are listed below the answer, with the FPIR in the watched group alone and its target.

    With --separate, Voice is the number of a voice, and Speech its seconds of speech.

    Exit code 1 when nobody is accepted for a file, or it could not be used.
    """
    answers: dict[Path, list[Match]] = {}
    voices: dict[Path, list[SeparatedVoice]] = {}
    failures: dict[Path, VoiceprintError] = {}
    with open_recognizer(store, create=create) as recognizer:
        minimum, least_s = recognizer.config.min_audio_quality, min_speech_s(recognizer.encoder)
        for caller_id in dict.fromkeys(ignore or ()):
            if recognizer.get_caller(caller_id) is None:  # a typing error would name an agent as the caller
                print_error(f"--ignore {caller_id}: not enrolled, so no voice is left out for it.")
        if not candidates:
            build_index(recognizer)
            if not recognizer.index_status().vectors:
                warn_of_other_spaces(recognizer)
        for path in files:
            try:
                audio = read(path, encoding, rate, channel)
                options = _Options(
                    threshold=threshold,
                    candidates=candidates,
                    ignore=ignore or (),
                    groups=groups or None,
                    not_groups=not_groups or [],
                    watch=watch or [],
                )
                if separate:
                    voices[path] = recognizer.identify(audio, k, separate=True, **options)
                    answers[path] = [match for voice in voices[path] for match in voice.matches]
                else:
                    answers[path] = recognizer.identify(audio, k, **options)
            except (InvalidAudioError, AudioQualityError) as error:  # the answer for this file
                failures[path] = error
    if as_json:
        found = voices if separate else answers
        print_json([_as_json(path, found.get(path), failures.get(path), separate) for path in files])
    elif separate and voices:
        rows = [
            row for path, several in voices.items() for row in _voice_rows(path, several, minimum, least_s)
        ]
        table("File", "Voice", "Speech", "Caller", *_FIGURES, rows=rows, right=("Voice", "Speech", *_RIGHT))
    elif answers:
        rows = [row for path, matches in answers.items() for row in _rows(path, matches)]
        table("File", "Caller", *_FIGURES, rows=rows, right=_RIGHT)
    if not as_json:
        _print_hits(
            [(path, hit) for path, several in voices.items() for voice in several for hit in voice.watch_hits]
            + [
                (path, hit)
                for path, answer in answers.items()
                if isinstance(answer, Identification)
                for hit in answer.watch_hits
            ]
        )
    for path, failure in failures.items():
        print_error(f"{path}: {type(failure).__name__}: {failure}")
    if not all(any(match.accepted for match in answers.get(path, ())) for path in files):
        raise typer.Exit(1)


_FIGURES = ("Similarity", "LLR", "FPIR", "Verdict", "Voiceprint")
_RIGHT = ("Similarity", "LLR", "FPIR", "Voiceprint")


def _rows(path: Path, matches: Sequence[Match]) -> list[tuple[object, ...]]:
    if not matches:
        verdict = matches.verdict if isinstance(matches, Identification) else Verdict.NOT_ENROLLED
        return [(path, "nobody to compare with", "", "", "", str(verdict).replace("_", " "), "")]
    return [
        (
            path if place == 0 else "",
            match.caller_id,
            f"{match.similarity:.3f}",
            "-" if match.llr is None else f"{match.llr:.1f}",
            "-" if match.fpir is None else percent(match.fpir),
            match.verdict,
            match.voiceprint_id,
        )
        for place, match in enumerate(matches)
    ]


def _print_hits(hits: Sequence[tuple[Path, WatchHit]]) -> None:
    if hits:
        head = ("Watched group", "Caller", "Similarity", "LLR", "FPIR", "Target")
        rows = [
            (
                place,
                hit.group,
                hit.caller_id,
                f"{hit.similarity:.3f}",
                "-" if hit.llr is None else f"{hit.llr:.1f}",
                "-" if hit.fpir is None else percent(hit.fpir),
                "-" if hit.target is None else percent(hit.target),
            )
            for place, hit in hits
        ]
        table("File", *head, rows=rows, right=head[2:])


def _voice_rows(
    path: Path, voices: list[SeparatedVoice], minimum: float, least_s: float
) -> list[tuple[object, ...]]:
    """The rows of a file. minimum: least quality; least_s: least speech in seconds."""
    rows = []
    for number, voice in enumerate(voices, 1):
        if voice.ignored is not None:
            answers: list[tuple[object, ...]] = [("", voice.ignored, "", "", "", "ignored", "")]
        elif not voice.matches and (voice.quality.score < minimum or voice.quality.net_speech_s < least_s):
            answers = [("", f"nobody: {', '.join(voice.quality.feedback)}", "", "", "", "", "")]
        else:
            answers = _rows(path, [*voice.matches])
        for place, (_, *answer) in enumerate(answers):
            head = (path if number == 1 else "", number, f"{voice.net_speech_s:.1f} s")
            rows.append((*(head if place == 0 else ("", "", "")), *answer))
    return rows


def _as_json(
    path: Path,
    found: Sequence[Match | SeparatedVoice] | None,
    error: VoiceprintError | None,
    separate: bool,
) -> dict[str, Any]:
    if found is None:
        return {"file": str(path), "error": type(error).__name__, "message": str(error)}
    answer: dict[str, Any] = {"file": str(path)}
    if isinstance(found, Identification):
        answer |= {
            "verdict": found.verdict,
            "reasons": found.reasons,
            "spoof_score": found.spoof_score,
            "watch_hits": [hit.model_dump() for hit in found.watch_hits],
        }
    return answer | {"voices" if separate else "matches": [one.model_dump() for one in found]}


def verify(
    caller_id: Annotated[str, typer.Argument(metavar="CALLER_ID")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help=FILE_HELP)],
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Cosine from which to accept. Default: VOICE_TARGET_FMR, else VOICE_TARGET_FPIR, else "
            "VOICE_SIMILARITY_THRESHOLD.",
        ),
    ] = None,
    watch: WatchOption = None,
    encoding: EncodingOption = None,
    rate: RateOption = None,
    channel: ChannelOption = None,
    store: StoreOption = None,
    create: CreateOption = False,
    as_json: JsonOption = False,
) -> None:
    """Verify that the voice in a file is that of the caller.

    Exit code 0: accepted. 1: rejected, not enrolled, opted out, expired, or too poor audio. 2: error.
    """
    with open_recognizer(store, create=create) as recognizer:
        audio = read(file, encoding, rate, channel)
        verification = recognizer.verify_caller(caller_id, audio, threshold=threshold, watch=watch or [])
    if as_json:
        print_json(verification.model_dump())
    else:
        print_lines(_sentence(verification))
        _print_hits([(file, hit) for hit in verification.watch_hits])
    if not verification.accepted:
        raise typer.Exit(1)


_WITHOUT_COMPARISON = {
    Verdict.OPTED_OUT: "has opted out: no voice is compared",
    Verdict.EXPIRED: "is expired: the consent or the retention period has ended",
    Verdict.NOT_ENROLLED: "is not enrolled: there is no voiceprint to compare with",
}


def _sentence(verification: Verification) -> str:
    if verification.similarity is None:
        return f"Rejected: {verification.caller_id} {_WITHOUT_COMPARISON[verification.verdict]}."
    verdict = "Accepted" if verification.accepted else "Rejected"
    head = f"{verdict}: the similarity with {verification.caller_id} is {verification.similarity:.3f}"
    if verification.threshold is not None:
        sign = "reaches" if verification.accepted else "is below"
        return f"{head}, which {sign} the threshold {verification.threshold:g}."
    if verification.fmr is None:
        return f"{head}. Too few callers are enrolled to estimate how many strangers reach that."
    return f"{head}, which {percent(verification.fmr)} of strangers would reach."
