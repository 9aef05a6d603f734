"""The decoder of libsndfile: FLAC, OGG, MP3 and its other formats."""

from __future__ import annotations

import io
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from voiceprint.errors import InvalidAudioError

# Subtypes whose samples fit int16 exactly.
_SMALL_SAMPLES: Final = frozenset(
    {
        "PCM_S8", "PCM_U8", "PCM_16", "ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM", "GSM610", "VOX_ADPCM",
        "G721_32", "G723_24", "G723_40", "NMS_ADPCM_16", "NMS_ADPCM_24", "NMS_ADPCM_32", "ALAC_16",
    }
)  # fmt: skip
_BUFFER_BYTES: Final = 1 << 16
_UNKNOWN_FRAMES: Final = 1 << 62  # libsndfile reports 2**63 - 1 for streams of unknown length


class SndfileDecoder:
    """Reads a file by libsndfile.

    raw: sample rate in Hz and subtype of a file without a header.
    frames: samples per channel, if libsndfile cannot determine them.

    Raises:
        InvalidAudioError: libsndfile cannot read the file; also by `read`.
    """

    def __init__(
        self, file: io.RawIOBase, *, raw: tuple[int, str] | None = None, frames: int | None = None
    ) -> None:
        import soundfile

        options: dict[str, Any] = {}
        if raw is not None:
            options = {"samplerate": raw[0], "channels": 1, "subtype": raw[1], "format": "RAW"}
        try:
            # Buffered: libsndfile reads MP3 frame by frame, each with a call into Python.
            self._sound = soundfile.SoundFile(io.BufferedReader(file, _BUFFER_BYTES), **options)
        # TypeError: soundfile requires a rate if it detects no header.
        except (soundfile.SoundFileError, RuntimeError, TypeError, ValueError, OverflowError) as error:
            raise _unreadable(error) from error
        self.sample_rate, self.channels = int(self._sound.samplerate), int(self._sound.channels)
        is_known = 0 <= self._sound.frames < _UNKNOWN_FRAMES
        self.frames = frames if frames is not None else int(self._sound.frames) if is_known else None
        self.is_16_bit = self._sound.subtype in _SMALL_SAMPLES
        self.is_float = self._sound.subtype in ("FLOAT", "DOUBLE")
        self.warnings: tuple[str, ...] = ()

    def read(self, frames: int) -> npt.NDArray[Any]:
        """The next samples, int16 or float32 [n, channels]; n = 0 at the end."""
        import soundfile

        try:
            block: npt.NDArray[Any] = self._sound.read(
                frames, dtype="int16" if self.is_16_bit else "float32", always_2d=True
            )
        except (soundfile.SoundFileError, RuntimeError, ValueError) as error:
            raise _unreadable(error) from error
        return np.asarray(block)

    def close(self) -> None:
        """Release libsndfile's resources."""
        self._sound.close()


def _unreadable(error: Exception) -> InvalidAudioError:
    # libsndfile's message only: soundfile's contains the repr of its argument.
    reason = str(getattr(error, "error_string", error)).rstrip(".")
    return InvalidAudioError(
        f"is damaged or not an audio file that can be read ({reason}): copy it again, "
        "or convert it to WAV, FLAC, OGG or MP3"
    )
