"""`run_job`: the work of one job."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from voiceprint.enrollment.bulk import RowResult, RowStatus
from voiceprint.errors import InvalidArgumentError, VoiceprintError
from voiceprint.recognizer import OpusAgentVoiceRecognizer
from voiceprint.server.problems import public_message

MOST_FAILURES: Final = 1000
"""Failed rows of a manifest that a result names: some 200 KB of JSON. Doubled, so is that."""

Report = Callable[[dict[str, Any]], None]
MustStop = Callable[[], bool]


class JobStoppedError(VoiceprintError):
    """The job was cancelled, or its worker stops."""


def run_job(
    recognizer: OpusAgentVoiceRecognizer,
    kind: str,
    place: Path,
    arguments: dict[str, Any],
    report: Report,
    must_stop: MustStop,
) -> dict[str, Any]:
    """Carry out a job; returns its result.

    place: the manifest, or the folder of recordings. report: takes the progress. must_stop: asked often; the
    job then raises `JobStoppedError`, and may be begun again.
    """
    work = _enroll if kind == "enroll" else _evaluate
    return work(recognizer, place, arguments, report, must_stop)


def _enroll(
    recognizer: OpusAgentVoiceRecognizer,
    manifest: Path,
    arguments: dict[str, Any],
    report: Report,
    must_stop: MustStop,
) -> dict[str, Any]:
    counts: Counter[RowStatus] = Counter()
    failures: list[dict[str, Any]] = []

    def on_row(result: RowResult) -> None:
        counts[result.status] += 1
        if result.error is not None and len(failures) < MOST_FAILURES:
            detail = public_message(result.error).replace(f"{manifest.parent}/", "")
            failures.append({"line": result.row.line, "error": type(result.error).__name__, "detail": detail})
        report({"stage": "enrolling", "done": counts.total(), "counts": dict(counts)})

    recognizer.enroll_manifest(
        manifest,
        on_row=on_row,
        stop=must_stop,
        processes=0,  # of processes, each would load the network beside that of the service
        within=manifest.parent,
        on_mismatch=arguments["on_mismatch"],
        on_several_voices=arguments["on_several_voices"],
        again=arguments["again"],
    )
    if counts["left"]:
        raise JobStoppedError("The job was stopped.")
    return {"counts": dict(counts), "failures": failures}


def _evaluate(
    recognizer: OpusAgentVoiceRecognizer,
    folder: Path,
    arguments: dict[str, Any],
    report: Report,
    must_stop: MustStop,
) -> dict[str, Any]:
    from voiceprint.evaluation import CalibratedScorer, CosineScorer, Settings, evaluate
    from voiceprint.identification.acceptance import configured_target, configured_threshold
    from voiceprint.scoring import calibration_for

    if not folder.is_dir() or any(path.is_symlink() for path in folder.rglob("*")):
        raise InvalidArgumentError(
            "The place is no folder, or has links, which are not followed: use copies."
        )

    def progress(stage: str, done: int, total: int) -> None:
        if must_stop():
            raise JobStoppedError("The job was stopped.")
        report({"stage": stage.lower(), "done": done, "total": total})

    config, encoder = recognizer.config, recognizer.encoder
    calibration = calibration_for(encoder.name, config.calibration_path)
    found = evaluate(
        folder,
        Settings(
            durations_s=tuple(arguments["durations_s"]),
            prints=tuple(arguments["prints"]),
            target_fpir=configured_target(config, encoder.name),
            more_prints=min(config.max_voiceprints_per_caller, 10),
            augmented_prints=config.enroll_simulated_lines,
            prompts=config.prompts,
        ),
        encoder=encoder,
        scorer=[
            CosineScorer(configured_threshold(config, encoder.name)),
            CalibratedScorer(encoder.name, encoder.dimension, calibration),
        ],
        progress=progress,
    )
    return {**found.as_dict(), "folders": [folder.name]}
