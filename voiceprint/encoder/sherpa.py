"""Speaker models by the `sherpa-onnx` wheel."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from voiceprint.encoder.model_encoder import ModelEncoder, Network
from voiceprint.encoder.model_file import ModelFile
from voiceprint.errors import EncoderError

# Those of C++ as pybind11 passes them on. ValueError: a message with bytes of a damaged file is not UTF-8.
_ERRORS: Final = (RuntimeError, ValueError, MemoryError)


class SherpaEncoder(ModelEncoder):
    """A speaker model by sherpa-onnx (the extra `sherpa`), which brings its own ONNX Runtime and features."""

    @staticmethod
    def _load(model: ModelFile) -> Network:
        try:
            import sherpa_onnx
        except ImportError as error:
            raise EncoderError(
                f"sherpa-onnx cannot be imported ({error}). Install it with `pip install "
                f"'opusagent-voiceprint[sherpa]'`; or set VOICE_ENCODER=onnx:{model.path}, which gives equal "
                "embeddings."
            ) from error
        try:
            with _as_file(model) as path:
                config = sherpa_onnx.SpeakerEmbeddingExtractorConfig(path, num_threads=1)
                extractor = sherpa_onnx.SpeakerEmbeddingExtractor(config)
        except _ERRORS as error:
            raise EncoderError(f"sherpa-onnx cannot load {model.path} ({error}).") from error
        return _Extractor(extractor, model.front_end.sample_rate)


@contextmanager
def _as_file(model: ModelFile) -> Iterator[str]:
    """The path of the content that was checked: sherpa-onnx loads files alone.

    A file in memory, where the system has such; otherwise a temporary file, which the extractor does not need
    once it has loaded it.
    """
    content = model.read()
    if not hasattr(os, "memfd_create"):
        with tempfile.TemporaryDirectory(prefix="voiceprint-") as folder:
            place = Path(folder, "model.onnx")
            place.write_bytes(content)
            yield str(place)
        return
    with os.fdopen(os.memfd_create(model.path.name), "wb") as file:
        file.write(content)
        file.flush()
        yield f"/proc/self/fd/{file.fileno()}"


class _Extractor:
    """A loaded `SpeakerEmbeddingExtractor`. Thread-safe: each call has a stream of its own."""

    def __init__(self, extractor: Any, sample_rate: int) -> None:
        self._extractor = extractor
        self._sample_rate = sample_rate

    def __call__(self, audio: NDArray[np.float32], /) -> Any:
        try:
            stream = self._extractor.create_stream()
            stream.accept_waveform(self._sample_rate, audio)
            stream.input_finished()
            if not self._extractor.is_ready(stream):
                raise EncoderError("The audio is too short for one frame of the model.")
            return self._extractor.compute(stream)
        except _ERRORS as error:
            raise EncoderError(
                f"sherpa-onnx failed on {len(audio) / self._sample_rate:.1f} s of audio ({error})."
            ) from error
