"""`voiceprint quality` and `voiceprint check`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from voiceprint.cli.audio import ChannelOption, EncodingOption, Files, RateOption, read
from voiceprint.cli.common import (
    CreateOption,
    JsonOption,
    StoreOption,
    open_recognizer,
    plural,
    print_error,
    print_json,
    print_lines,
    table,
    warn_of_other_spaces,
)
from voiceprint.cli.gallery_options import chosen_settings
from voiceprint.errors import InvalidAudioError
from voiceprint.models import ErasureCheck, Finding
from voiceprint.privacy.erasure import remains_of
from voiceprint.recognizer import OpusAgentVoiceRecognizer
from voiceprint.storage import MemoryStorage

_FIGURES = ("Score", "Length", "Speech", "SNR", "Clipped", "Level", "Band")


def quality(
    files: Files,
    encoding: EncodingOption = None,
    rate: RateOption = None,
    channel: ChannelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the quality of recordings for speaker recognition.

    Exit code 1 when one is below the minimum (VOICE_MIN_AUDIO_QUALITY) or cannot be read.
    """
    config = chosen_settings()
    # Unlike `assess`, a recognizer leaves out known prompts, and detects several voices.
    recognizer = OpusAgentVoiceRecognizer(MemoryStorage(), config=config)
    results: list[dict[str, Any]] = []
    rows: list[tuple[object, ...]] = []
    advice: list[tuple[object, ...]] = []
    for path in files:
        try:
            measured = recognizer.check_enrollment(read(path, encoding, rate, channel)).quality
        except InvalidAudioError as error:  # the result of this file; the others go on
            results.append({"file": str(path), "accepted": False, "message": str(error)})
            rows.append((path, *[""] * len(_FIGURES), "unusable", error))
            continue
        accepted = measured.score >= config.min_audio_quality
        results.append({"file": str(path), "accepted": accepted, **measured.model_dump()})
        figures = (
            f"{measured.score:.2f}",
            f"{measured.duration_s:.1f} s",
            f"{measured.net_speech_s:.1f} s",
            f"{measured.snr_db:.0f} dB",
            f"{100 * measured.clipping:.1f} %",
            f"{measured.level_dbfs:.0f} dBFS",
            f"{measured.bandwidth_hz / 1000:.1f} kHz",
        )
        rows.append((path, *figures, "good" if accepted else "poor", ", ".join(measured.feedback)))
        advice += [(path, sentence) for sentence in measured.advice]
    if as_json:
        print_json(results)
    else:
        table("File", *_FIGURES, "Verdict", "Feedback", rows=rows, right=_FIGURES)
        if advice:
            print_lines("")
            table("File", "What to do", rows=advice)
    if not all(result["accepted"] for result in results):
        raise typer.Exit(1)


def check(
    fix: Annotated[bool, typer.Option("--fix", help="Repair what can be derived from the records.")] = False,
    erased: Annotated[
        str | None,
        typer.Option(
            "--erased", metavar="CALLER_ID", help="Search for remains of this deleted caller instead."
        ),
    ] = None,
    store: StoreOption = None,
    create: CreateOption = False,
    as_json: JsonOption = False,
) -> None:
    """Read every record and compare the store with its index.

    Warns if many strangers would get a caller's name at the configured similarity threshold.

    Exit code 1 when something is wrong.
    """
    with open_recognizer(store, create=create) as recognizer:
        if erased is not None:
            _print_remains(remains_of(recognizer.storage, erased), as_json=as_json)
            return
        findings = recognizer.check(fix=fix)
        if not findings:
            warn_of_other_spaces(recognizer)
            advice = recognizer.threshold_advice()
            if advice is not None:
                print_error(advice)
            if not as_json:
                storage = recognizer.storage
                print_lines(
                    f"All is well: {plural(storage.count_callers(), 'caller')} with "
                    f"{plural(storage.count(), 'voiceprint')} in {storage.location}"
                )
    if as_json:
        print_json([finding.model_dump() for finding in findings])
    elif findings:
        _print_findings(findings)
    if findings:
        raise typer.Exit(1)


def _print_remains(check: ErasureCheck, *, as_json: bool) -> None:
    if as_json:
        print_json(check.model_dump())
    else:
        when = f"deleted at {check.deleted_at}" if check.deleted_at else "no deletion noted"
        print_lines(f"{check.caller_id}: {when}; searched at {check.checked_at}: {', '.join(check.searched)}")
        if check.findings:
            _print_findings(check.findings)
        else:
            print_lines("Nothing was found.")
    if check.findings:
        raise typer.Exit(1)


def _print_findings(findings: Sequence[Finding]) -> None:
    rows = [(finding.code, finding.place, finding.message) for finding in findings]
    table("Finding", "Place", "What to know", rows=rows)
