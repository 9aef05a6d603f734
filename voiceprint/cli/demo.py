"""`voiceprint demo` and `voiceprint demo-server`: the sample voices, enrolled for a while."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from shlex import quote
from statistics import median
from typing import Annotated, Any

import typer
from rich.text import Text

from voiceprint.audio import load_audio
from voiceprint.cli.common import JsonOption, percent, print_error, print_json, print_lines, spinner, table
from voiceprint.config import VoiceFingerprintConfig
from voiceprint.errors import ConfigurationError, InvalidArgumentError
from voiceprint.recognizer import OpusAgentVoiceRecognizer
from voiceprint.storage import JSONStorage

TARGET = 0.05  # FPIR; so few voices cannot resolve a smaller one
ENROLLED = 7
ENROLLMENT_FILES = 2
SERVER_EXTRA = "The service needs the extra `server`: pip install 'opusagent-voiceprint[server]'."


def demo(
    voices: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Sample voices, DIR/CALLER/*.flac. Default: examples/voices."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Enroll sample callers, recognize them in other recordings, and refuse strangers.

    Nothing stays on disk. Exit code 1 when an answer is wrong.
    """
    callers = _callers(voices or _sample_voices())
    known, strangers = dict(list(callers.items())[:ENROLLED]), dict(list(callers.items())[ENROLLED:])
    with tempfile.TemporaryDirectory() as folder:
        # The defaults, not the settings of the environment.
        recognizer = OpusAgentVoiceRecognizer(
            JSONStorage(Path(folder, "voiceprints.json")), config=_defaults()
        )
        started = time.perf_counter()
        with spinner("Loading the encoder: the first time takes some seconds..."):
            audio, sample_rate = load_audio(next(iter(known.values()))[0])
            recognizer.get_embedding(audio, sample_rate=sample_rate)
        loaded_s = time.perf_counter() - started
        started = time.perf_counter()
        _enroll(recognizer, known)
        enrolled_s = time.perf_counter() - started
        rows = [
            _identify(recognizer, file, caller_id, enrolled=caller_id in known)
            for caller_id, files in callers.items()
            for file in files[ENROLLMENT_FILES:]
        ]
    wrong = [row for row in rows if not row["right"]]
    if as_json:
        print_json(rows)
    else:
        prints = ENROLLMENT_FILES * len(known)
        print_lines(f"Loaded the encoder in {loaded_s:.1f} s.")
        print_lines(
            f"Enrolled {len(known)} callers ({', '.join(known)}) from {ENROLLMENT_FILES} recordings each: "
            f"{prints} recordings in {enrolled_s:.1f} s."
        )
        print_lines(
            f"Not enrolled: {', '.join(strangers)}. "
            f"Now other recordings of all {len(callers)} are identified:",
            "",
        )
        _print_rows(rows)
        print_lines("", *_summary(rows, recognizer.config.similarity_threshold))
        print_lines(_by_target(rows))
    if wrong:
        print_error(f"Wrong: {', '.join(row['recording'] for row in wrong)}.")
        raise typer.Exit(1)


def demo_server(
    voices: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Sample voices, DIR/CALLER/*.flac. Default: examples/voices."),
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of 127.0.0.1.")] = 8000,
) -> None:
    """Serve enrolled sample callers: the console, and the HTTP interface with a key for everything.

    The settings of the environment are not used. Ctrl-C ends it, and nothing stays on disk.
    """
    try:
        from voiceprint.server.database import ServerDatabase
        from voiceprint.server.keys import ApiKeys
        from voiceprint.server.running import free_port, run
    except ImportError as error:
        raise ConfigurationError(SERVER_EXTRA) from error
    callers = _callers(voices or _sample_voices())
    free_port("127.0.0.1", port)
    # SIGTERM ends it as Ctrl-C does: with the folder removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    for name in [name for name in os.environ if name.upper().startswith("VOICE_")]:
        del os.environ[name]
    with tempfile.TemporaryDirectory(prefix="voiceprint-demo-") as folder:
        os.environ["VOICE_STORAGE_PATH"] = str(Path(folder, "voiceprints.json"))
        os.environ["VOICE_AUDIT"] = str(Path(folder, "audit.jsonl"))
        known = dict(list(callers.items())[:ENROLLED])
        with spinner("Enrolling the sample voices..."), OpusAgentVoiceRecognizer() as recognizer:
            _enroll(recognizer, known)
        state = str(Path(folder, "server.db"))
        key, _ = ApiKeys(ServerDatabase(state)).create(["admin", "audit"], name="demo")
        known_file, strange_file = (callers[list(callers)[number]][-1] for number in (0, -1))
        print_lines(
            f"Enrolled: {', '.join(known)}. Not enrolled: {', '.join(list(callers)[ENROLLED:])}.",
            f"Console: http://127.0.0.1:{port}/console/",
            f"Key:     {key}",
            "",
            f"    export URL=http://127.0.0.1:{port}/v1/galleries/default KEY={key}",
            *(
                f'    curl -H "X-API-Key: $KEY" --data-binary @{quote(str(file))} $URL/identify'
                for file in (known_file, strange_file)
            ),
            "",
            "Ctrl-C ends it, and nothing stays on disk.",
        )
        sys.stdout.flush()
        run({"port": port, "state": state}, None, None, print_error)


def _enroll(recognizer: OpusAgentVoiceRecognizer, callers: dict[str, list[Path]]) -> None:
    for caller_id, files in callers.items():
        for file in files[:ENROLLMENT_FILES]:
            audio, sample_rate = load_audio(file)
            recognizer.enroll_caller(caller_id, audio, sample_rate=sample_rate)


def _sample_voices() -> Path:
    for folder in (Path("examples/voices"), Path(__file__).parents[2] / "examples/voices"):
        if folder.is_dir():
            return folder
    raise InvalidArgumentError(
        "The sample voices are not here: they come with the source code, in examples/voices. "
        "Run the demo in a checkout, or name a folder: --voices DIR (DIR/CALLER/*.flac)."
    )


def _callers(folder: Path) -> dict[str, list[Path]]:
    """The recordings of each caller with enough of them."""
    callers = {}
    for caller in sorted(folder.iterdir()) if folder.is_dir() else ():
        files = sorted(caller.glob("*.flac")) if caller.is_dir() else []
        if len(files) > ENROLLMENT_FILES:
            callers[caller.name] = files
    if len(callers) <= ENROLLED:
        raise InvalidArgumentError(
            f"The demo needs {ENROLLED + 1} callers with {ENROLLMENT_FILES + 1} recordings each in "
            f"{str(folder)!r} (DIR/CALLER/*.flac), and there are {len(callers)}."
        )
    return callers


def _defaults() -> VoiceFingerprintConfig:
    fields = VoiceFingerprintConfig.model_fields.items()
    return VoiceFingerprintConfig(**{name: field.default for name, field in fields})


def _identify(
    recognizer: OpusAgentVoiceRecognizer, file: Path, speaker: str, *, enrolled: bool
) -> dict[str, Any]:
    """The answer for a recording, and whether it is right."""
    audio, sample_rate = load_audio(file)
    started = time.perf_counter()
    best = recognizer.identify(audio, k=1, sample_rate=sample_rate)[0]
    seconds = time.perf_counter() - started
    answer = best.caller_id if best.accepted else None
    return {
        "recording": f"{speaker}/{file.name}",
        "speaker": speaker,
        "enrolled": enrolled,
        "answer": answer,
        "nearest": best.caller_id,
        "similarity": round(best.similarity, 4),
        "fpir": None if best.fpir is None else round(best.fpir, 6),
        "right": answer == (speaker if enrolled else None),
        "seconds": round(seconds, 4),
    }


def _print_rows(rows: list[dict[str, Any]]) -> None:
    table(
        "Recording",
        "Enrolled",
        "Answer",
        "Nearest voice",
        "Similarity",
        "FPIR",
        "Time",
        "",
        rows=[
            (
                row["recording"],
                "yes" if row["enrolled"] else "no",
                row["answer"] or "nobody we know",
                row["nearest"],
                f"{row['similarity']:.3f}",
                "-" if row["fpir"] is None else percent(row["fpir"]),
                f"{1000 * row['seconds']:.0f} ms",
                Text("right", "green") if row["right"] else Text("WRONG", "bold red"),
            )
            for row in rows
        ],
        right=("Similarity", "FPIR", "Time"),
    )


def _by_target(rows: list[dict[str, Any]]) -> str:
    """The same searches, decided by a target instead of a similarity."""
    named = [row for row in rows if row["fpir"] is not None and row["fpir"] <= TARGET]
    known = [row for row in rows if row["enrolled"]]
    right = sum(row["enrolled"] and row["nearest"] == row["speaker"] for row in named)
    strangers = sum(not row["enrolled"] for row in named)
    return (
        f"By VOICE_TARGET_FPIR={TARGET:g} instead, estimated from the enrolled callers: {right} of "
        f"{len(known)} named right, {strangers} of {len(rows) - len(known)} strangers named. FPIR is the "
        "share of strangers who would score as high with some caller."
    )


def _summary(rows: list[dict[str, Any]], threshold: float) -> tuple[str, str]:
    known = [row for row in rows if row["enrolled"]]
    strangers = [row for row in rows if not row["enrolled"]]
    return (
        f"{sum(row['right'] for row in known)} of {len(known)} recordings of enrolled callers "
        f"were named right, {sum(row['right'] for row in strangers)} of {len(strangers)} of strangers "
        f"were refused (similarity under {threshold:g}).",
        f"An answer took {1000 * median(row['seconds'] for row in rows):.0f} ms (median). "
        "The voices are synthesized: real callers are harder to tell apart.",
    )
