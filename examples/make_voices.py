"""Make the sample voices: nine synthesized callers, four utterances each.

    python examples/make_voices.py [--out DIR]

Each caller is one voice of a free speech synthesizer. In Debian these are the packages flite,
espeak-ng, festival and festvox-kdlpc16k. The result is `DIR/CALLER/1.flac` to `4.flac`, 16 kHz
mono, 16 bit. The engines are deterministic, including the noise of the whispered voice: the same
versions of the packages give the same samples. The committed files were made with flite 2.2,
espeak-ng 1.51, festival 2.5.0 and festvox-kdlpc16k 1.4.0, all of Debian 12.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

SAMPLE_RATE = 16_000
PEAK = 10 ** (-3 / 20)
"""Peak of every utterance, -3 dBFS: the peaks of the engines differ by up to 8 dB."""

MAX_JUMP = 1.2
"""Greatest difference of neighboring samples of an engine, full scale 1. Clean speech stays below 0.9."""

PROGRAMS = {
    "flite": "flite",
    "espeak-ng": "espeak-ng",
    "festival": "festival",
    "text2wave": "festival",
}
"""Debian package of each program."""


class MakeVoicesError(Exception):
    """The voices cannot be synthesized; the message says why."""


class MissingPackagesError(MakeVoicesError):
    """Synthesizers are not installed; `packages` names them as Debian does."""

    def __init__(self, packages: list[str]) -> None:
        self.packages = packages
        names = " ".join(packages)
        super().__init__(f"missing Debian packages: {names}\nInstall them: sudo apt-get install {names}")


class SynthesisError(MakeVoicesError):
    """An engine returned no audio, or unusable audio."""


@dataclass(frozen=True)
class Caller:
    """A caller: engine, voice, and the four texts."""

    engine: Literal["flite", "espeak-ng", "festival"]
    voice: str
    texts: tuple[str, str, str, str]


CALLERS = {
    "amara": Caller(
        "flite",
        "slt",
        (
            "Hello, I am calling about the invoice from last week, because the total is higher than "
            "we agreed.",
            "My washing machine was collected on Tuesday, and nobody has told me yet when it will be "
            "repaired.",
            "Could you please move my appointment to Friday afternoon? I have to work longer on "
            "Thursday this week.",
            "I would like to change the delivery address of my order before it leaves your warehouse "
            "later tonight, please.",
        ),
    ),
    "bruno": Caller(
        "flite",
        "awb",
        (
            "I have received a reminder for an invoice, but I am quite sure that it was paid by bank "
            "transfer in April.",
            "Do you repair old radios as well? Mine hums very loudly, and it only plays on one channel.",
            "I have been waiting for the engineer since nine o'clock, and the heating in our house is "
            "still not working.",
            "Can you tell me how much it costs to cancel the contract early, and how long the period "
            "of notice would be?",
        ),
    ),
    "carlo": Caller(
        "flite",
        "rms",
        (
            "I want to ask whether the spare part for my old bicycle has arrived at your shop yet.",
            "I am still missing the second half of my order, the four gray chairs for the dining table.",
            "We are moving to another town next month, so our telephone line has to move as well.",
            "My new glasses are ready, I was told, but may my son pick them up for me instead?",
        ),
    ),
    "dario": Caller(
        "flite",
        "kal16",
        (
            "There is a charge on my last bill for a service that I never ordered, so please take it "
            "off again.",
            "My son would like to join the swimming course, so please tell me when the next one for "
            "beginners starts.",
            "I forgot the password of my customer account, and the link that you sent does not open "
            "any more.",
            "I am looking for a plumber who can come today, because water is running down the wall of "
            "our kitchen.",
        ),
    ),
    "elena": Caller(
        "espeak-ng",
        "en-us+f4",
        (
            "Good afternoon, I paid my electricity bill twice this month, and I would like to have "
            "the second payment returned to my account.",
            "The shoes that I ordered from you are one size too small. May I exchange them in one of "
            "your shops in the city?",
            "I need a taxi to the airport very early on Monday morning, with enough room for three "
            "large suitcases and a pushchair.",
            "My insurance card has not come in the post yet, although your colleague promised it to "
            "me more than two weeks ago.",
        ),
    ),
    "farid": Caller(
        "espeak-ng",
        "en-us+m7",
        (
            "Our internet connection breaks down every evening at about eight, and switching the "
            "router off and on again does not help.",
            "I would like to order twenty boxes of printer paper for the office, the same quality as "
            "we had in the spring.",
            "Is it possible to bring the delivery forward by one day? The kitchen fitters are going "
            "to be here on Wednesday already.",
            "Yes, hello, I lost my season ticket on the bus this morning, and I wonder whether "
            "somebody has handed it in to you.",
        ),
    ),
    "gil": Caller(
        "espeak-ng",
        "en-us+whisper",
        (
            "I am in the library and cannot speak up. Please check whether the books that I reserved "
            "can be collected this afternoon.",
            "The hotel charged me for three nights, but we stayed only for two. Whom should I write "
            "to about getting a refund?",
            "Could somebody call me back after five? I want to talk about the offer for the new "
            "windows and the date of the work.",
            "My daughter is ill today, so we cannot come to the dentist. Is there another free "
            "appointment at the end of the month?",
        ),
    ),
    "hakan": Caller(
        "espeak-ng",
        "en-us+travis",
        (
            "The coffee machine that we rent from you shows a red light, and it has not made a single "
            "cup since yesterday at noon.",
            "Please put my newspaper on hold while I am on holiday. I leave on the tenth of June and "
            "come back two weeks later.",
            "I have a question about the guarantee: the screen of my tablet went dark, and I bought "
            "it less than a year ago.",
            "We would like to rent a small van for moving some furniture, if possible from Friday "
            "evening until Sunday at lunchtime.",
        ),
    ),
    "ivo": Caller(
        "festival",
        "voice_ked_diphone",
        (
            "Hello, my order was meant to come on Monday, but the tracking page has not changed for a "
            "whole week.",
            "Can I pay the rest of the amount in three parts, beginning at the end of next month?",
            "Please tell me which documents the tenant has to sign before we can hand over the keys.",
            "I would like to speak with somebody about the quotation for painting the house this summer.",
        ),
    ),
}


def check_installed() -> None:
    """Raise MissingPackagesError unless every engine and the festival voice are installed."""
    missing = {package for program, package in PROGRAMS.items() if shutil.which(program) is None}
    # Tested here, because for an unknown voice text2wave writes no file, yet exits with 0.
    if "festival" in missing or run(["festival", "-b", "(voice_ked_diphone)"]).returncode != 0:
        missing.add("festvox-kdlpc16k")
    if missing:
        raise MissingPackagesError(sorted(missing))


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run `command`, without a shell, and return its exit code and output."""
    return subprocess.run(command, capture_output=True, text=True, check=False)


def synthesize(caller: Caller, text: str, scratch: Path) -> NDArray[np.float64]:
    """Synthesize `text` in the voice of `caller`: float64 samples at 16 kHz, mono, peak at -3 dBFS."""
    wav = scratch / "speech.wav"
    wav.unlink(missing_ok=True)
    if caller.engine == "flite":
        command = ["flite", "-voice", caller.voice, "-t", text, "-o", str(wav)]
    elif caller.engine == "espeak-ng":
        command = ["espeak-ng", "-v", caller.voice, "-w", str(wav), text]
    else:
        script = scratch / "speech.txt"
        script.write_text(text + "\n", encoding="utf-8")
        command = ["text2wave", "-eval", f"({caller.voice})", "-o", str(wav), str(script)]
    result = run(command)
    if result.returncode != 0 or not wav.exists():
        raise SynthesisError(f"{command[0]} made no audio for {caller.voice}: {result.stderr.strip()}")

    samples, rate = soundfile.read(wav, dtype="float64")
    if not samples.any():
        raise SynthesisError(f"{caller.voice} is silent: {text!r}")
    # Festival wraps around where a diphone exceeds 16 bits, whatever its -scale. The jump is a click that
    # scaling cannot remove: such a text needs other words.
    if np.abs(np.diff(samples)).max() > MAX_JUMP:
        raise SynthesisError(f"{caller.voice} overflows its sample format: {text!r}")
    speech: NDArray[np.float64] = soxr.resample(samples, rate, SAMPLE_RATE)
    speech *= PEAK / np.abs(speech).max()
    return speech


def make_voices(out: Path) -> None:
    """Write the four utterances of every caller below `out`, replacing files of the same name."""
    check_installed()
    with tempfile.TemporaryDirectory() as scratch:
        for name, caller in CALLERS.items():
            folder = out / name
            folder.mkdir(parents=True, exist_ok=True)
            for number, text in enumerate(caller.texts, start=1):
                samples = synthesize(caller, text, Path(scratch))
                path = folder / f"{number}.flac"
                soundfile.write(path, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
                print(f"{path}  {len(samples) / SAMPLE_RATE:.1f} s")


def main() -> int:
    """Parse the command line and make the voices; return the exit code."""
    parser = argparse.ArgumentParser(description="Make the sample voices of nine synthesized callers.")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(__file__).resolve().parent / "voices",
        metavar="DIR",
        help="folder for the folders of the callers (default: voices beside this script)",
    )
    try:
        make_voices(parser.parse_args().out)
    except (MakeVoicesError, OSError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
