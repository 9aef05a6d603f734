"""Reads `voiceprint.toml`: the settings of each gallery."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from voiceprint._files import open_regular
from voiceprint._gallery_places import PLACE_OF, check_apart
from voiceprint.config import NO_PATHS, PATH_SETTINGS, VoiceFingerprintConfig, allowed_values
from voiceprint.errors import ConfigurationError, GalleryNotFoundError
from voiceprint.validation import shown

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["read_galleries"]

# The place of a store is never taken from [defaults] or the environment: galleries would share it.
_PLACES: Final = tuple(dict.fromkeys(PLACE_OF.values()))
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_MAX_BYTES = 1_000_000  # of the file and of a secret: tens of thousands of galleries; more is no such file


class _MissingSecretError(ConfigurationError):
    """The variable or file of a value is absent, as a secret is in the process of another gallery."""


def read_galleries(path: Path, only: Iterable[str] | None = None) -> dict[str, VoiceFingerprintConfig]:
    """The settings of the galleries, in the order of the file.

    only: names of the galleries that are used; the secrets of the others may be absent. None is all.

    Raises `ConfigurationError` with the place of the fault, and `GalleryNotFoundError`.
    """
    defaults, tables = _tables(path)
    wanted = list(tables) if only is None else list(only)
    for name in wanted:
        check_name(path, name, tables)
    configs: dict[str, VoiceFingerprintConfig] = {}
    for name, table in tables.items():
        try:
            configs[name] = _config(path, name, defaults, table)
        except _MissingSecretError as error:
            if name in wanted:
                raise ConfigurationError(str(error)) from error.__cause__
    check_apart(path, configs)
    return {name: config for name, config in configs.items() if name in wanted}


def check_name(path: Path, name: object, names: Iterable[str]) -> None:
    """Raise `GalleryNotFoundError` unless the name is one of the galleries."""
    known = list(names)
    if name not in known:
        raise GalleryNotFoundError(
            f"{path} has no gallery {shown(name)}. The galleries are: {', '.join(known)}."
        )


def _tables(path: Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The tables [defaults] and [galleries.NAME]."""
    document = _parsed(path)
    unknown = sorted(document.keys() - {"defaults", "galleries"})
    if unknown:
        raise ConfigurationError(
            f"{path} has {unknown[0]!r} at the top: only [defaults] and [galleries.NAME] are allowed."
        )
    defaults = _as_table(document.get("defaults", {}), f"{path}: [defaults]")
    tables = _as_table(document.get("galleries", {}), f"{path}: [galleries]")
    if not tables:
        raise ConfigurationError(f"{path} names no gallery: add a table [galleries.NAME].")
    for name in _PLACES:
        if name in defaults:
            raise ConfigurationError(
                f"{path}: [defaults] {name} would be the store of every gallery: set it in [galleries.NAME]."
            )
    _check_names(defaults, f"{path}: [defaults]")
    for name, table in tables.items():
        if not _NAME.fullmatch(name):
            raise ConfigurationError(
                f"{path}: {shown(name)} is no name of a gallery: 1 to 64 letters, digits, '-', '_' and '.', "
                "the first a letter or digit."
            )
        place = f"{path}: [galleries.{name}]"
        _check_names(_as_table(table, place), place)
    return defaults, tables


def _parsed(path: Path) -> dict[str, Any]:
    try:
        text = _read(path, f"{path}")
    except _MissingSecretError as error:
        raise ConfigurationError(
            f"{error} Write it (docs/galleries.md), or give the path of another."
        ) from error.__cause__
    try:
        document: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        # Not chained: the error may hold the whole text, and so passwords.
        raise ConfigurationError(f"{path} is not TOML: {str(error).splitlines()[0]}.") from None
    return document


def _read(path: Path, label: str) -> str:
    try:
        with open_regular(path) as stream:
            content = stream.read(_MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise _MissingSecretError(f"{label} does not exist.") from error
    except OSError as error:
        raise ConfigurationError(
            f"{label} cannot be read: {str(error.strerror or error).rstrip('.')}."
        ) from error
    if len(content) > _MAX_BYTES:
        raise ConfigurationError(f"{label} is longer than {_MAX_BYTES:,} bytes.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{label} is not UTF-8 text, from byte {error.start} on.") from None


def _as_table(value: object, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigurationError(f"{place} is {shown(value)}: a table is allowed.")
    return value


def _check_names(table: Mapping[str, Any], place: str) -> None:
    for name in table.keys() - VoiceFingerprintConfig.model_fields.keys():
        near = get_close_matches(name, VoiceFingerprintConfig.model_fields, 1)
        advice = f"did you mean {near[0]}?" if near else "see docs/configuration.md."
        raise ConfigurationError(f"{place} has {shown(name)}, which is no setting: {advice}")


def _config(
    path: Path, gallery: str, defaults: Mapping[str, Any], table: Mapping[str, Any]
) -> VoiceFingerprintConfig:
    """The settings of one gallery: its table, then [defaults], then the environment."""
    places = {name: f"{path}: [defaults] {name}" for name in defaults}
    places |= {name: f"{path}: [galleries.{gallery}] {name}" for name in table}
    given = {**defaults, **table}
    secrets = {name: value for name, value in given.items() if _is_secret(name, value)}
    values = {
        name: _secret(value, path.parent, places[name]) if name in secrets else value
        for name, value in given.items()
    }
    # The environment names the store of a process without galleries.
    for name in ("storage_backend", *_PLACES):
        values.setdefault(name, VoiceFingerprintConfig.model_fields[name].default)
    try:
        config = VoiceFingerprintConfig(
            **{name: _below(path.parent, name, value) for name, value in values.items()}
        )
    except ConfigurationError as error:
        raise _located(error, f"{path}: [galleries.{gallery}]", places, secrets) from None
    place = PLACE_OF[config.storage_backend]
    if place not in table:
        raise ConfigurationError(
            f"{path}: [galleries.{gallery}] names no store: set {place} "
            f"(its storage_backend is {config.storage_backend})."
        )
    return config


def _is_secret(name: str, value: object) -> bool:
    """Return True for a table in place of a secret, also an invalid one."""
    if not isinstance(value, dict):
        return False
    default = VoiceFingerprintConfig.model_fields[name].get_default(call_default_factory=True)
    return not isinstance(default, dict) or any(isinstance(one, str) for one in value.values())


def _secret(value: Mapping[str, Any], folder: Path, place: str) -> str:
    """The text that { env = "NAME" } or { file = "PATH" } stands for."""
    (kind, name), *others = [*value.items()] or [("", "")]
    if others or kind not in ("env", "file") or not isinstance(name, str) or not name:
        raise ConfigurationError(
            f'{place} is a table: {{ env = "NAME" }} or {{ file = "PATH" }} is allowed, to keep a secret '
            "out of this file."
        )
    if "\0" in name:
        raise ConfigurationError(
            f"{place}: {name!r} has a null byte, which no name of a variable or file has."
        )
    if kind == "file":
        text = _read(_absolute(folder, name), f"{place}: the file {name!r}").strip()
        if not text:
            raise _MissingSecretError(f"{place}: the file {name!r} is empty.")
        return text
    text = os.environ.get(name, "")
    if not text:
        raise _MissingSecretError(f"{place}: the environment variable {name} is not set.")
    return text


def _below(folder: Path, name: str, value: object) -> object:
    """The value of a setting, with a relative path made one below the folder of the file."""
    if not isinstance(value, str) or not value:
        return value
    if name in PATH_SETTINGS and value.strip().lower() not in NO_PATHS:
        return str(_absolute(folder, value))
    if name == "encryption_keys" and not value.startswith("sqlite:") and "://" not in value:
        return str(_absolute(folder, value))
    if name in ("encoder", "encoder_secondary") and ":" in value:
        program, _, model = value.partition(":")
        return f"{program}:{_absolute(folder, model)}" if model else value
    return value


def _absolute(folder: Path, path: str) -> Path:
    return folder / path if not path.startswith("~") else Path(path)


def _located(
    error: ConfigurationError, gallery: str, places: Mapping[str, str], secrets: Mapping[str, object]
) -> ConfigurationError:
    """The error of a setting, with its place in the file; the value of a secret is left out."""
    message = str(error)
    variable, _, rest = message.partition(" ")
    name = variable.removeprefix("VOICE_").lower()
    if name in secrets:
        ((kind, source),) = dict(secrets[name]).items()  # type: ignore[call-overload]
        return ConfigurationError(
            f"{places[name]}: the value of the {'variable' if kind == 'env' else 'file'} {source} is not "
            f"allowed: {allowed_values(name)}."
        )
    if name in places:
        return ConfigurationError(f"{places[name]} {rest}")
    return ConfigurationError(f"{gallery}: {message}")
