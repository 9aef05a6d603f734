"""The master keys: from a file, a variable, or the output of a command such as a KMS's client.

Each gives one key or several in Base64, 32 bytes each, separated by white space; in a file, lines that begin
with # are comments. The first key encrypts; the others read what was encrypted before it was added. A file
and a command are read again when a key is asked for that they did not have before, and a file whenever it has
changed, so that running processes follow a rotation.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import logging
import os
import secrets
import shlex
import stat
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

from voiceprint._files import expanded, open_regular, replace_file, sync_folder
from voiceprint.errors import ConfigurationError, EncryptionKeyError
from voiceprint.privacy.encryption.primitives import KEY_BYTES, AuthenticatedCipher

if TYPE_CHECKING:
    from voiceprint.config import VoiceFingerprintConfig

__all__ = ["KEY_ID_BYTES", "CommandKeys", "FileKeys", "KeyRing", "KeySource", "VariableKeys", "new_key_file"]

log = logging.getLogger(__name__)

KEY_ID_BYTES = 8
_ID_LABEL = b"voiceprint master key id\0"
_COMMAND_S = 30.0  # a KMS answers in less than a second; a hanging client must not hang the service for ever
_MOST_BYTES = 1 << 16  # of a file or an output: over a thousand keys
_FORM = "one Base64 text of 32 bytes for each key, as `voiceprint encryption init` writes it"


class MasterKey:
    """A key that wraps data keys. id: 8 bytes that name it and do not reveal it."""

    __slots__ = ("cipher", "id")

    def __init__(self, raw: bytes) -> None:
        self.id = hashlib.sha256(_ID_LABEL + raw).digest()[:KEY_ID_BYTES]
        self.cipher = AuthenticatedCipher(raw)

    def __repr__(self) -> str:
        return f"MasterKey({self.id.hex()})"


class KeySource(ABC):
    """A source of master keys."""

    rereads = True
    """Whether a second reading may give other keys."""

    @abstractmethod
    def read(self) -> list[bytes]:
        """The keys, the current one first. Raises `ConfigurationError`."""

    def changed(self) -> bool:
        """Whether the source has other keys than at the last `read`, as far as a cheap check shows."""
        return False


class VariableKeys(KeySource):
    """Keys in the text of a setting."""

    rereads = False

    def __init__(self, text: str) -> None:
        self._text = text

    def read(self) -> list[bytes]:
        return _parse(self._text, "VOICE_ENCRYPTION_KEY")


class CommandKeys(KeySource):
    """Keys in the output of a command, which runs without a shell. Neither output is logged or shown."""

    def __init__(self, command: str) -> None:
        try:
            self._arguments = shlex.split(command)
        except ValueError as error:
            raise ConfigurationError(f"VOICE_ENCRYPTION_KEY_COMMAND cannot be split: {error}.") from None
        if not self._arguments:
            raise ConfigurationError("VOICE_ENCRYPTION_KEY_COMMAND is empty: give a program.")

    def read(self) -> list[bytes]:
        program = self._arguments[0]
        try:
            done = subprocess.run(  # noqa: S603  the operator's own command, without a shell
                self._arguments,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_COMMAND_S,
                check=False,
            )
        except subprocess.TimeoutExpired:  # not chained: it holds the output
            raise ConfigurationError(
                f"VOICE_ENCRYPTION_KEY_COMMAND: {program!r} gave no key within {_COMMAND_S:g} s."
            ) from None
        except OSError as error:
            raise ConfigurationError(
                f"VOICE_ENCRYPTION_KEY_COMMAND: {program!r} cannot be run ({error.strerror})."
            ) from error
        if done.returncode:
            raise ConfigurationError(
                f"VOICE_ENCRYPTION_KEY_COMMAND: {program!r} ended with the status {done.returncode} and gave "
                "no key. Run it by hand for its message."
            )
        text = done.stdout[:_MOST_BYTES].decode("ascii", errors="replace")
        return _parse(text, f"The output of {program!r} (VOICE_ENCRYPTION_KEY_COMMAND)")


class FileKeys(KeySource):
    """Keys in a file."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        try:
            self.path = expanded(path)
        except OSError as error:
            raise ConfigurationError(f"VOICE_ENCRYPTION_KEY_FILE: {error.strerror}.") from error
        self._state: tuple[int, ...] = ()

    def read(self) -> list[bytes]:
        try:
            with open_regular(self.path) as stream:
                status = os.fstat(stream.fileno())
                text = stream.read(_MOST_BYTES).decode("ascii", errors="replace")
        except OSError as error:
            raise ConfigurationError(
                f"The key file {self.path} cannot be read ({error.strerror}): check "
                "VOICE_ENCRYPTION_KEY_FILE, or make a new one with `voiceprint encryption init`."
            ) from error
        self._state = _state(status)
        if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            log.warning("The key file %s can be read by other users: chmod 600 it.", self.path)
        return _parse(text, f"The key file {self.path}")

    def changed(self) -> bool:
        try:
            return _state(self.path.stat()) != self._state
        except OSError:  # removed: the keys in memory stay good
            return False

    def add(self) -> None:
        """Put a new key before the others. Raises `ConfigurationError`."""
        keys = self.read()
        mode = stat.S_IMODE(self.path.stat().st_mode)
        try:
            descriptor = replace_file(self.path.resolve(), _text([secrets.token_bytes(KEY_BYTES), *keys]))
            try:
                os.fchmod(descriptor, mode)
            finally:
                os.close(descriptor)
            sync_folder(self.path.resolve().parent)
        except OSError as error:
            raise ConfigurationError(
                f"The key file {self.path} cannot be written ({error.strerror}): nothing was changed."
            ) from error


class KeyRing:
    """The master keys of a source, read at the first use and again when it has changed."""

    def __init__(self, source: KeySource) -> None:
        self.source = source
        self._keys: list[MasterKey] = []
        self._by_id: dict[bytes, MasterKey] = {}

    @classmethod
    def from_config(cls, config: VoiceFingerprintConfig) -> KeyRing | None:
        """The keys that the settings name, None without any; one object for all with the same settings.

        Raises `ConfigurationError` where two are set.
        """
        values = {name: getattr(config, name) for name in _SOURCES}
        given = [name for name, value in values.items() if value is not None]
        if len(given) > 1:
            names = " and ".join(f"VOICE_{name.upper()}" for name in given)
            raise ConfigurationError(f"{names} are set: set one of them.")
        return _shared_ring(given[0], values[given[0]]) if given else None

    @property
    def current(self) -> MasterKey:
        """The key that encrypts. Raises `ConfigurationError`."""
        if not self._keys or self.source.changed():
            self._read()
        return self._keys[0]

    def find(self, key_id: bytes) -> MasterKey:
        """The key of this id. Raises `EncryptionKeyError`, and `ConfigurationError`."""
        key = self._by_id.get(key_id)
        if key is None and (not self._keys or self.source.rereads):
            self._read()
            key = self._by_id.get(key_id)
        if key is None:
            raise EncryptionKeyError(
                f"The data is encrypted with the key {key_id.hex()}, and the configured "
                f"{'key is' if len(self._keys) == 1 else 'keys are'} {', '.join(self.ids())}: set "
                "VOICE_ENCRYPTION_KEY_FILE, VOICE_ENCRYPTION_KEY or VOICE_ENCRYPTION_KEY_COMMAND to the "
                "right one. Nothing was changed."
            )
        return key

    def ids(self) -> list[str]:
        """The ids of all keys, 16 hexadecimal digits each, the current one first."""
        self.current  # noqa: B018  reads them
        return [key.id.hex() for key in self._keys]

    def _read(self) -> None:
        # Without a lock: two threads may read at once, and get the same keys.
        keys = [MasterKey(raw) for raw in self.source.read()]
        self._keys, self._by_id = keys, {key.id: key for key in keys}


_SOURCES: dict[str, Callable[[str], KeySource]] = {
    "encryption_key_file": FileKeys,
    "encryption_key": VariableKeys,
    "encryption_key_command": CommandKeys,
}


@lru_cache(maxsize=8)
def _shared_ring(setting: str, value: str) -> KeyRing:
    # A service builds a recognizer for every call, and a KMS's client takes a good part of a second.
    return KeyRing(_SOURCES[setting](value))


def new_key_file(path: str | os.PathLike[str]) -> str:
    """Write a new key to a new file that only its owner can read; returns the id of the key.

    Raises `ConfigurationError` where a file is there already.
    """
    raw = secrets.token_bytes(KEY_BYTES)
    key_id = MasterKey(raw).id.hex()  # before the file: the extra may be missing
    try:
        place = expanded(path)
        descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(_text([raw]))
            stream.flush()
            os.fsync(descriptor)
        sync_folder(place.absolute().parent)
    except FileExistsError as error:
        raise ConfigurationError(
            f"{place} is there already, and data may be encrypted with it: it was left as it is."
        ) from error
    except OSError as error:
        raise ConfigurationError(
            f"The key file {os.fspath(path)} cannot be written ({error.strerror})."
        ) from error
    return key_id


def _text(keys: list[bytes]) -> bytes:
    head = (
        "# Master keys of voiceprint, 32 bytes in Base64: the first encrypts, the others read older data.\n"
        "# Keep a copy in another place than the backups: without the key, nobody can read the data.\n"
    )
    return (head + "".join(f"{base64.b64encode(key).decode()}\n" for key in keys)).encode()


def _parse(text: str, where: str) -> list[bytes]:
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    words = " ".join(lines).split()
    keys: list[bytes] = []
    for number, word in enumerate(words, start=1):
        try:
            key = base64.b64decode(word, validate=True)
        except (binascii.Error, ValueError):  # not chained: it may quote the key
            key = b""
        if len(key) != KEY_BYTES:
            raise ConfigurationError(f"{where} has something else than a key in place {number}: {_FORM}.")
        if key not in keys:
            keys.append(key)
    if not keys:
        raise ConfigurationError(f"{where} holds no key: {_FORM}.")
    return keys


def _state(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
