"""A cache of embeddings on disk, for repeated evaluations.

An embedding is biometric data: only the owner can read the files (mode 0600, in a folder of mode 0700), and
deleting the folder deletes them all. A file name is the SHA-256 of the encoder's name and of the encoder's
input, after the condition is applied.
"""

from __future__ import annotations

import hashlib
import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from voiceprint._files import cache_folder, expanded, replace_file
from voiceprint.errors import InvalidArgumentError

logger = logging.getLogger(__name__)

_CHECKSUM: Final = hashlib.sha256().digest_size


def default_folder() -> Path:
    """The default, in the user's cache folder. Raises OSError for a user without a home folder."""
    return cache_folder() / "evaluation"


class EmbeddingCache:
    """A folder of embeddings by content; processes may share it.

    Unreadable and damaged files count as missing. The first failure to write logs a warning and ends writing.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        try:
            self.folder = expanded(folder)
        except OSError as error:
            raise InvalidArgumentError(
                f"The cache is to be in {os.fspath(folder)!r}: {error.strerror}."
            ) from error
        self.hits = 0
        self.misses = 0
        self._writing = True

    def get(self, encoder: str, dimension: int, audio: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """The embedding, float32[dimension], of audio float32[n]; None where it is not cached."""
        content = b""
        with suppress(OSError):
            content = self._path(encoder, audio).read_bytes()
        checksum, values = content[:_CHECKSUM], content[_CHECKSUM:]
        if len(values) != 4 * dimension or hashlib.sha256(values).digest() != checksum:
            self.misses += 1
            return None
        self.hits += 1
        return np.frombuffer(values, dtype="<f4").astype(np.float32)

    def put(self, encoder: str, audio: NDArray[np.float32], embedding: NDArray[np.float32]) -> None:
        """Store the embedding of audio float32[n]."""
        if not self._writing:
            return
        values = embedding.astype("<f4").tobytes()
        path = self._path(encoder, audio)
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.parent.mkdir(mode=0o700, exist_ok=True)
            os.close(replace_file(path, hashlib.sha256(values).digest() + values, durable=False))
        except OSError as error:
            self._writing = False
            logger.warning("Embeddings cannot be cached in %s: %s", self.folder, error)

    def _path(self, encoder: str, audio: NDArray[np.float32]) -> Path:
        digest = hashlib.sha256(f"{encoder}\n".encode())
        digest.update(np.ascontiguousarray(audio, dtype="<f4").data)
        name = digest.hexdigest()
        return self.folder / name[:2] / name[2:]
