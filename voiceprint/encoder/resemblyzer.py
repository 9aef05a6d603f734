"""Resemblyzer's encoder: a three-layer LSTM trained with the GE2E loss (Wan et al., arXiv:1710.10467)."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voiceprint.errors import EncoderError
from voiceprint.models import RESEMBLYZER_SPACE


class ResemblyzerEncoder:
    """The `resemblyzer` package itself, on the CPU: its preprocessing, its network, its pooling.

    The first embedding loads the network, which takes some seconds and about 460 MB; making the
    object costs nothing.
    """

    name = RESEMBLYZER_SPACE
    dimension = 256
    sample_rate = 16_000

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._network: Any = None
        self._preprocess: Any = None

    def embed(self, audio: NDArray[np.float32]) -> NDArray[np.float32]:
        """As `Encoder.embed`."""
        network = self._load()
        if not audio.any():  # the volume of silence is minus infinity, which the preprocessing divides by
            raise EncoderError("The audio holds no speech to embed.")
        speech = self._preprocess(audio)
        if not len(speech):
            raise EncoderError("The audio holds no speech to embed.")
        embedding: NDArray[np.float32] = network.embed_utterance(speech)
        return embedding

    def embed_batch(self, audios: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """As `Encoder.embed_batch`; one after the other, as Resemblyzer has no batches."""
        if not audios:
            return np.empty((0, self.dimension), dtype=np.float32)
        return np.stack([self.embed(audio) for audio in audios])

    def _load(self) -> Any:
        with self._lock:
            if self._network is None:
                # Imported here: torch and librosa take seconds, which `import voiceprint` must not.
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", "pkg_resources is deprecated", UserWarning)
                    warnings.filterwarnings("ignore", ".*scipy.ndimage", DeprecationWarning)
                    try:
                        import resemblyzer
                    except ImportError as error:
                        raise EncoderError(
                            f"Resemblyzer cannot be imported ({error}). Install it with "
                            "`pip install opusagent-voiceprint`; it needs setuptools below 81."
                        ) from error
                self._preprocess = resemblyzer.preprocess_wav
                self._network = resemblyzer.VoiceEncoder("cpu", verbose=False)
            return self._network
