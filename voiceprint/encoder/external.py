"""An embedding space whose encoder runs elsewhere, such as a service that returns embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NoReturn

import numpy as np
from numpy.typing import NDArray

from voiceprint.errors import EncoderError, InvalidArgumentError
from voiceprint.validation import EMBEDDING_DIMENSIONS, is_integer, shown

_MAX_NAME: Final = 100  # characters, as in `Voiceprint.encoder`
_MAX_DIMENSION: Final = 65_536  # of the index


class ExternalEncoder:
    """Names an embedding space without a model, for a recognizer that is only given embeddings.

    name: of the space, 1 to 100 characters; change it whenever the model that computes the embeddings
    changes. dimension: length of the embeddings, 1 to 65536.

    `embed` raises `EncoderError`. Raises `InvalidArgumentError` for another name or dimension.
    """

    sample_rate: Final = 16_000
    """Hz; no audio is embedded."""

    def __init__(self, name: str, dimension: int) -> None:
        if not isinstance(name, str) or not 1 <= len(name) <= _MAX_NAME or not _is_encodable(name):
            raise InvalidArgumentError(
                f"The name of the space is {shown(name)}: a str of 1 to {_MAX_NAME} characters is allowed."
            )
        if not is_integer(dimension) or not 1 <= dimension <= _MAX_DIMENSION:
            raise InvalidArgumentError(
                f"The dimension is {shown(dimension)}: a whole number from 1 to {_MAX_DIMENSION} is allowed."
            )
        expected = EMBEDDING_DIMENSIONS.get(name, dimension)
        if dimension != expected:
            raise InvalidArgumentError(
                f"The dimension is {dimension}, and the space {name!r} has {expected}: give the space of "
                "another model another name."
            )
        self.name: Final = name
        self.dimension: Final = int(dimension)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self.dimension})"

    def warm_up(self) -> None:
        """Nothing to load."""

    def embed(self, audio: NDArray[np.float32]) -> NDArray[np.float32]:  # noqa: ARG002
        """Raises `EncoderError`: the model is elsewhere."""
        self._refuse()

    def embed_batch(self, audios: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:  # noqa: ARG002
        """Raises `EncoderError`: the model is elsewhere."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise EncoderError(
            f"The encoder {self.name!r} runs elsewhere, and this process cannot embed audio in its space: "
            "give the embedding (embedding=...) instead of the audio."
        )


def _is_encodable(name: str) -> bool:
    """Return False for a name with a lone surrogate, which no store holds."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
