"""`Galleries`: several brands or clients in one deployment, each with its own store, index and settings."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from voiceprint._gallery_file import check_name, read_galleries
from voiceprint.config import VoiceFingerprintConfig
from voiceprint.errors import ConfigurationError, InvalidArgumentError, StorageError
from voiceprint.recognizer import OpusAgentVoiceRecognizer
from voiceprint.validation import shown

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Galleries"]


class Galleries:
    """The galleries that a file such as `voiceprint.toml` names (docs/galleries.md).

        with Galleries.open("voiceprint.toml") as galleries:
            galleries["brand-a"].match_caller(audio)

    `galleries[NAME]` is the recognizer of a gallery, the same for all threads, over a store that is opened at
    the first use; equal encoders are loaded once in a process. Iteration gives the names, in the order of the
    file.
    """

    def __init__(self, path: Path, configs: dict[str, VoiceFingerprintConfig]) -> None:
        self._path = path
        self._configs = configs
        # Without a lock: opening one gallery may wait for a server, and no other must wait with it.
        self._recognizers: dict[str, OpusAgentVoiceRecognizer] = {}
        self._owners: dict[str, str] = {}  # the gallery of each store that was opened, by its identity
        self._closed = False

    @classmethod
    def open(
        cls, path: str | os.PathLike[str] = "voiceprint.toml", *, only: Iterable[str] | None = None
    ) -> Galleries:
        """Read the file and check it; no store is opened yet.

        only: names of the galleries to use. The secrets of the others may be absent, as in a process that
        serves a single brand.

        Raises `ConfigurationError` with the place of a fault, also where two galleries share a store or a
        file, and `GalleryNotFoundError` for a name in `only` that the file does not have.
        """
        if not isinstance(path, str | os.PathLike) or not os.fspath(path) or "\0" in str(path):
            raise InvalidArgumentError(
                f"The path of the galleries is {shown(path)}: give the path of a TOML file."
            )
        if isinstance(only, str):
            raise InvalidArgumentError(f"only is {only!r}: give a list of names.")
        place = Path(path).absolute()
        return cls(place, read_galleries(place, only))

    @property
    def path(self) -> Path:
        """The file, absolute."""
        return self._path

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the galleries, in the order of the file."""
        return tuple(self._configs)

    def config(self, name: str) -> VoiceFingerprintConfig:
        """A copy of the settings of a gallery. Raises `GalleryNotFoundError`."""
        check_name(self._path, name, self._configs)
        return self._configs[name].model_copy()

    def __getitem__(self, name: str) -> OpusAgentVoiceRecognizer:
        """The recognizer of a gallery. A closed one is opened again.

        Raises `GalleryNotFoundError`, the errors of the store, and `ConfigurationError` where the store turns
        out to be that of another gallery, such as one server under two names. A store has no identity before
        its first save: until then neither is refused, and after it the methods of the second recognizer
        raise this error.
        """
        if self._closed:
            raise StorageError(f"The galleries of {self._path} were closed: open them again.")
        check_name(self._path, name, self._configs)
        held = self._recognizers.get(name)
        if held is not None and not held.storage.is_closed:
            return held
        opened = OpusAgentVoiceRecognizer(config=self.config(name))
        try:
            if opened.storage.presence is not None:
                opened.storage.presence.guard(partial(self._claim, name))
            opened.storage.identity()  # opens the store, if it is there
        except BaseException:
            opened.close()
            raise
        if held is not None:
            self._recognizers.pop(name, None)
        found = self._recognizers.setdefault(name, opened)
        if found is not opened:  # another thread was faster
            opened.close()
        return found

    def _claim(self, name: str, identity: str) -> None:
        """Raise `ConfigurationError` where the store of this identity is that of another gallery."""
        owner = self._owners.setdefault(identity, name)
        if owner != name:
            raise ConfigurationError(
                f"{self._path}: the store of the gallery {name!r} is that of {owner!r}, or a copy of its "
                "files: give each gallery its own. `voiceprint copy` copies callers into another store."
            )

    def __iter__(self) -> Iterator[str]:
        return iter(self._configs)

    def __len__(self) -> int:
        return len(self._configs)

    def __contains__(self, name: object) -> bool:
        return name in self._configs

    def close(self) -> None:
        """Close the recognizers of all galleries. May be called twice."""
        self._closed = True
        while self._recognizers:
            self._recognizers.popitem()[1].close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Galleries({str(self._path)!r}, {list(self._configs)})"
