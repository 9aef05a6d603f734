"""The options `--gallery` and `--config` of all commands that read settings, and the settings they choose."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Collection
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand

from voiceprint.config import VoiceFingerprintConfig
from voiceprint.errors import ConfigurationError, InvalidArgumentError
from voiceprint.galleries import Galleries

GALLERY_VARIABLE, CONFIG_VARIABLE = "VOICE_GALLERY", "VOICE_CONFIG"
DEFAULT_FILE = "voiceprint.toml"

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help=f"The file of the galleries. Default: {CONFIG_VARIABLE}, or {DEFAULT_FILE} in this folder.",
    ),
]
_GalleryOption = Annotated[
    str | None,
    typer.Option(
        "--gallery",
        metavar="NAME",
        help=f"Use the store and the settings of this gallery. Default: {GALLERY_VARIABLE}.",
    ),
]


class _Given(NamedTuple):
    """The options of the command that runs."""

    gallery: str | None = None
    config: Path | None = None
    store: str | None = None


_NONE = _Given()
_given: ContextVar[_Given] = ContextVar("_given", default=_NONE)


def open_galleries(config: Path | None, only: list[str] | None = None) -> Galleries:
    """The galleries of `--config`, `VOICE_CONFIG` or voiceprint.toml in the current folder."""
    return Galleries.open(config or os.environ.get(CONFIG_VARIABLE) or DEFAULT_FILE, only=only)


def chosen_settings() -> VoiceFingerprintConfig:
    """The settings of the gallery that the options or the environment name; without one, the environment's.

    `--store` takes the place of a gallery of the environment.
    """
    gallery, config, store = _given.get()
    if store is not None:
        if gallery is not None or config is not None:
            raise InvalidArgumentError("--store and --gallery name two stores: give one of them.")
        return VoiceFingerprintConfig()
    if gallery is None:
        gallery = os.environ.get(GALLERY_VARIABLE) or None
    if gallery is not None:
        return open_galleries(config, [gallery]).config(gallery)
    if config is not None or os.environ.get(CONFIG_VARIABLE):
        raise ConfigurationError(
            f"{'--config' if config is not None else CONFIG_VARIABLE} names galleries, and none is chosen: "
            f"give --gallery NAME, or set {GALLERY_VARIABLE} (`voiceprint galleries list` shows the names)."
        )
    return VoiceFingerprintConfig()


def add_gallery_options(app: typer.Typer, *, also: Collection[Callable[..., Any]] = ()) -> None:
    """Give `--gallery` and `--config` to all commands with `--store`, and to those of `also`.

    Here and not in each command, so that none is forgotten.
    """
    for command in app.registered_commands:
        function = command.callback
        if function is not None and (function in also or "store" in inspect.signature(function).parameters):
            command.cls = _GalleryCommand
    for group in app.registered_groups:
        if group.typer_instance is not None:
            add_gallery_options(group.typer_instance, also=also)


class _GalleryCommand(TyperCommand):
    """A command with the options `--gallery` and `--config`, of which its function sees nothing."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        at = next((n for n, one in enumerate(self.params) if one.name == "store"), len(self.params))
        self.params[at:at] = _parameters()

    def invoke(self, ctx: Any) -> Any:
        given = _Given(ctx.params.pop("gallery"), ctx.params.pop("config"), ctx.params.get("store"))
        before = _given.set(given)
        try:
            return super().invoke(ctx)
        finally:
            _given.reset(before)


def _parameters() -> list[Any]:
    # Parsed by typer from a function, as its classes of options change between its versions.
    app = typer.Typer(add_completion=False)

    @app.command()
    def _options(gallery: _GalleryOption = None, config: ConfigOption = None) -> None: ...

    return [one for one in typer.main.get_command(app).params if one.name in ("gallery", "config")]
