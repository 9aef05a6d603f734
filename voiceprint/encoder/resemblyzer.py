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

# Mean square, of samples in [-1, 1], below which nothing was ever recorded.
_LEAST_POWER = 1e-30


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
        # The preprocessing raises the volume by the logarithm of the power, which float32 rounds to zero
        # not only in silence.
        if float(np.mean(np.square(audio, dtype=np.float64))) < _LEAST_POWER:
            raise EncoderError("The audio holds no speech to embed.")
        speech = self._preprocess(audio)
        if not len(speech):
            raise EncoderError("The audio holds no speech to embed.")
        try:
            embedding: NDArray[np.float32] = network.embed_utterance(speech)
        except (RuntimeError, MemoryError) as error:  # torch's errors, such as a want of memory
            raise EncoderError(
                f"Resemblyzer failed on {len(audio) / self.sample_rate:.0f} s of audio ({error})."
            ) from error
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
                try:
                    self._network = resemblyzer.VoiceEncoder("cpu", verbose=False)
                except (OSError, RuntimeError, MemoryError) as error:  # its file of weights
                    raise EncoderError(f"Resemblyzer's network cannot be loaded ({error}).") from error
            return self._network
