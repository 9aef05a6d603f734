"""ONNX Runtime, in the calling thread, without telemetry."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from voiceprint.errors import EncoderError

logger = logging.getLogger(__name__)

_TELEMETRY: Final = "ORT_DISABLE_TELEMETRY"


def _silence_telemetry() -> None:
    """Switch the telemetry of ONNX Runtime off, unless the user has set `ORT_DISABLE_TELEMETRY`.

    By default, the import alone writes a device id and a database into the user's cache and a file into
    TMPDIR, and ONNX Runtime reports the models that it loads and runs to Microsoft. Only the variable stops
    all of this, and only before the import.
    """
    if os.environ.get(_TELEMETRY):
        return
    os.environ[_TELEMETRY] = "1"
    disable = getattr(sys.modules.get("onnxruntime"), "disable_telemetry_events", None)
    if disable is not None:
        disable()
        logger.warning(
            "ONNX Runtime was imported before voiceprint, with its telemetry on. It is off from now on, but "
            "may have reported its start, and may have written a device id and a database into the user's "
            "cache (Microsoft/DeveloperTools/.onnxruntime) and .ses into TMPDIR. Set %s=1 for the process, "
            "or import voiceprint first.",
            _TELEMETRY,
        )


# At import, so that an application which imports ONNX Runtime after this package reports nothing.
_silence_telemetry()


def _errors() -> tuple[type[Exception], ...]:
    """The errors of ONNX Runtime, whose only common base is Exception, and those of its Python part."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = [each for each in vars(state).values() if isinstance(each, type) and issubclass(each, Exception)]
    return (*own, RuntimeError, ValueError, MemoryError)


class Session:
    """A loaded model. `run` is thread-safe, and works in the calling thread.

    ONNX Runtime has no threads of its own: they would spin beside those of FAISS and BLAS, and not survive a
    fork. The products are too small for them: two threads are no faster than one.
    """

    def __init__(self, model: bytes) -> None:
        try:
            import onnxruntime  # takes 0.1 s
        except ImportError as error:
            raise EncoderError(
                f"ONNX Runtime cannot be imported ({error}). Install it with `pip install onnxruntime`, or "
                "set VOICE_ENCODER=resemblyzer."
            ) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except _errors() as error:
            raise EncoderError(f"ONNX Runtime cannot load the encoder ({error}).") from error

    @property
    def inputs(self) -> list[str]:
        """Names of the inputs, in order."""
        return [each.name for each in self._session.get_inputs()]

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs, in order."""
        return [each.name for each in self._session.get_outputs()]

    def run(self, wanted: str | None = None, /, **inputs: NDArray[Any]) -> NDArray[np.float32]:
        """The output of this name, or the model's one output for None. Raises `EncoderError`."""
        try:
            (output,) = self._session.run(None if wanted is None else [wanted], inputs)
        except _errors() as error:
            shapes = {name: value.shape for name, value in inputs.items()}
            raise EncoderError(f"ONNX Runtime failed on {shapes} ({error}).") from error
        result: Any = output
        return np.asarray(result, dtype=np.float32)
