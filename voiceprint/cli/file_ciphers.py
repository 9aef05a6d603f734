"""The options of commands that write and read encrypted files, and the passphrase."""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path
from typing import Annotated

import typer

from voiceprint._files import open_regular
from voiceprint.errors import ConfigurationError
from voiceprint.privacy.encryption import KeyRing, SealedFiles
from voiceprint.recognizer import OpusAgentVoiceRecognizer
from voiceprint.storage.sealing import FileCipher

_VARIABLE = "VOICE_PASSPHRASE"
_MOST_BYTES = 1 << 12  # of a passphrase

EncryptOption = Annotated[
    bool | None,
    typer.Option(
        "--encrypt/--no-encrypt",
        help="Encrypt the file: with the passphrase of --passphrase-file or VOICE_PASSPHRASE, else with the "
        "configured master key, else with a passphrase that is asked for. Default: for an encrypted store.",
        show_default=False,
    ),
]
PassphraseFileOption = Annotated[
    Path | None,
    typer.Option("--passphrase-file", metavar="PATH", help="A file whose first line is the passphrase."),
]


def writing_cipher(
    recognizer: OpusAgentVoiceRecognizer, encrypt: bool | None, passphrase_file: Path | None
) -> FileCipher | None:
    """The cipher of a file that is written, None for a plain one. Raises `ConfigurationError`."""
    if encrypt is False and passphrase_file is not None:
        raise ConfigurationError(
            "--no-encrypt and --passphrase-file contradict each other: give one of them."
        )
    if encrypt is None:
        encrypt = recognizer.storage.sealing is not None or passphrase_file is not None
    if not encrypt:
        return None
    passphrase = _given(passphrase_file)
    if passphrase is not None:
        return SealedFiles(passphrase=lambda: passphrase)
    keys = KeyRing.from_config(recognizer.config)
    if keys is not None:
        return SealedFiles(keys=keys)
    return SealedFiles(passphrase=cache(lambda: _asked(confirm=True)))


def reading_cipher(recognizer: OpusAgentVoiceRecognizer, passphrase_file: Path | None) -> FileCipher:
    """The cipher of an encrypted file that is read: whichever of key and passphrase it needs."""
    passphrase = _given(passphrase_file)
    keys = KeyRing.from_config(recognizer.config)
    ask = cache(lambda: _asked(confirm=False) if passphrase is None else passphrase)
    return SealedFiles(keys=keys, passphrase=ask)


def _given(file: Path | None) -> str | None:
    """The passphrase of the file or the variable, None without either."""
    if file is None:
        text = os.environ.get(_VARIABLE)
        return text or None
    try:
        with open_regular(file) as stream:
            text = stream.readline(_MOST_BYTES).decode().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise ConfigurationError(f"The passphrase file {file} cannot be read: {reason}.") from None
    if not text:
        raise ConfigurationError(f"The first line of the passphrase file {file} is empty.")
    return text


def _asked(*, confirm: bool) -> str:
    if not sys.stdin.isatty():
        raise ConfigurationError(
            f"The file needs a passphrase: give --passphrase-file, or set {_VARIABLE}. It is no argument, "
            "which every user could read."
        )
    text: str = typer.prompt("Passphrase", hide_input=True, confirmation_prompt=confirm, err=True)
    return text
