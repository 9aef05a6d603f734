"""Resemblyzer's encoder: a three-layer LSTM trained with the GE2E loss (Wan et al., arXiv:1710.10467)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voiceprint._lazy import Lazy
from voiceprint.audio.speech.vad import MIN_POWER
from voiceprint.errors import EncoderError
from voiceprint.models import RESEMBLYZER_SPACE


class ResemblyzerEncoder:
    """The `resemblyzer` package itself, on the CPU: the reference for `OnnxEncoder`.

    The first embedding loads the network, which takes some seconds and about 460 MB.

    threads: of torch, in the whole process; 0 leaves them unchanged.
    """

    name = RESEMBLYZER_SPACE
    dimension = 256
    sample_rate = 16_000

    def __init__(self, threads: int = 0) -> None:
        self._loaded: Lazy[Any] = Lazy(partial(_load, threads), inherited=True)

    def warm_up(self) -> None:
        """As `Encoder.warm_up`."""
        self._loaded.get()

    def embed(self, audio: NDArray[np.float32]) -> NDArray[np.float32]:
        """As `Encoder.embed`."""
        preprocess, network = self._loaded.get()
        # The preprocessing takes the logarithm of the power in float32, which may round to zero outside of
        # silence too.
        if float(np.mean(np.square(audio, dtype=np.float64))) < MIN_POWER:
            raise EncoderError("The audio holds no speech to embed.")
        speech = preprocess(audio)
        if not len(speech):
            raise EncoderError("The audio holds no speech to embed.")
        try:
            embedding: NDArray[np.float32] = network.embed_utterance(speech)
        except (RuntimeError, MemoryError) as error:  # torch's errors, such as too little memory
            raise EncoderError(
                f"Resemblyzer failed on {len(audio) / self.sample_rate:.0f} s of audio ({error})."
            ) from error
        return embedding

    def embed_batch(self, audios: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """As `Encoder.embed_batch`; one after the other, as Resemblyzer has no batches."""
        if not audios:
            return np.empty((0, self.dimension), dtype=np.float32)
        return np.stack([self.embed(audio) for audio in audios])


def _load(threads: int) -> Any:
    # Imported here: torch and librosa take seconds to import.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "pkg_resources is deprecated", UserWarning)
        warnings.filterwarnings("ignore", ".*scipy.ndimage", DeprecationWarning)
        try:
            import resemblyzer
        except ImportError as error:
            raise EncoderError(
                f"Resemblyzer cannot be imported ({error}). Install it with `pip install "
                "opusagent-voiceprint`, with setuptools below 81; or set VOICE_ENCODER=onnx, which gives the "
                "same embeddings and needs neither torch nor librosa."
            ) from error
    if threads:
        import torch

        torch.set_num_threads(threads)
    try:
        return resemblyzer.preprocess_wav, resemblyzer.VoiceEncoder("cpu", verbose=False)
    except (OSError, RuntimeError, MemoryError) as error:  # its file of weights
        raise EncoderError(f"Resemblyzer's network cannot be loaded ({error}).") from error
