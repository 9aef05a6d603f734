"""ONNX Runtime, with one thread: the caller's."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from voiceprint.errors import EncoderError


class Session:
    """A model, loaded; `run` may be called from many threads at once, each of which works by itself.

    ONNX Runtime gets no threads of its own: they would spin beside those of FAISS and BLAS, and not survive a
    fork. The products here are too small for them anyhow: two were no faster than one.
    """

    def __init__(self, model: bytes) -> None:
        try:
            import onnxruntime  # here, as it takes 0.1 s
        except ImportError as error:
            raise EncoderError(
                f"ONNX Runtime cannot be imported ({error}). Install it with `pip install onnxruntime`, or "
                "set VOICE_ENCODER=resemblyzer to do without."
            ) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except (RuntimeError, MemoryError) as error:  # the roots of ONNX Runtime's own
            raise EncoderError(f"ONNX Runtime cannot load the encoder ({error}).") from error

    def run(self, **inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """The model's one output. Raises `EncoderError`."""
        try:
            (output,) = self._session.run(None, inputs)
        except (RuntimeError, MemoryError) as error:
            shapes = {name: value.shape for name, value in inputs.items()}
            raise EncoderError(f"ONNX Runtime failed on {shapes} ({error}).") from error
        result: Any = output
        return np.asarray(result, dtype=np.float32)
