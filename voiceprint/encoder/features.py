"""The features of speaker models by kaldi-native-fbank: log mel bands, as sherpa-onnx computes them."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from voiceprint.encoder.model_file import FrontEnd
from voiceprint.errors import EncoderError

_INT16: Final = np.float32(32_768.0)
_LEAST_DEVIATION: Final = 1e-5  # NeMo's, of a band over time
_CUTOFF_HZ: Final = -400.0  # upper edge of the bands, below half of the sample rate


class Features:
    """Computes the features of audio. Thread-safe. Raises `EncoderError` without kaldi-native-fbank."""

    def __init__(self, front_end: FrontEnd) -> None:
        try:
            import kaldi_native_fbank
        except ImportError as error:
            raise EncoderError(
                f"kaldi-native-fbank cannot be imported ({error}). Install it with `pip install "
                "'opusagent-voiceprint[fbank]'`."
            ) from error
        self._front_end = front_end
        self._bank: Any = kaldi_native_fbank.OnlineFbank
        options = self._options = kaldi_native_fbank.FbankOptions()
        is_nemo = front_end.framework == "nemo"
        options.frame_opts.samp_freq = front_end.sample_rate
        options.frame_opts.frame_length_ms = front_end.window_ms
        options.frame_opts.frame_shift_ms = front_end.shift_ms
        options.frame_opts.window_type = front_end.window
        options.frame_opts.dither = 0.0  # the default adds noise: no two embeddings would be equal
        options.frame_opts.snip_edges = is_nemo
        options.frame_opts.remove_dc_offset = not is_nemo
        options.mel_opts.num_bins = front_end.bands
        options.mel_opts.low_freq = 0.0 if is_nemo else 20.0
        options.mel_opts.high_freq = _CUTOFF_HZ
        options.mel_opts.is_librosa = is_nemo

    def __call__(self, audio: NDArray[np.float32], /) -> NDArray[np.float32]:
        """The features, float32[frames, bands], of mono audio float32[n] in -1..1.

        Raises `EncoderError` for audio that is shorter than one frame.
        """
        try:
            bank = self._bank(self._options)
        except (RuntimeError, ValueError) as error:  # of kaldi-native-fbank, for odd metadata
            raise EncoderError(f"The model's metadata name features that do not exist ({error}).") from error
        samples = audio if self._front_end.normalize_samples else audio * _INT16
        bank.accept_waveform(self._front_end.sample_rate, samples)
        bank.input_finished()
        frames = [bank.get_frame(number) for number in range(bank.num_frames_ready)]
        if not frames:
            raise EncoderError("The audio is too short for one frame of the model.")
        features = np.stack(frames)
        if self._front_end.normalization:
            features = features - features.mean(axis=0)
        if self._front_end.normalization == "per_feature":
            features = features / (features.std(axis=0) + np.float32(_LEAST_DEVIATION))
        return np.asarray(features, dtype=np.float32)
