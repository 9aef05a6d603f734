"""The decoder of libsndfile: FLAC, OGG, MP3 and what else it reads."""

from __future__ import annotations

import io
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from voiceprint.errors import InvalidAudioError

# Subtypes whose samples int16 holds to the last bit.
_SMALL_SAMPLES: Final = frozenset(
    {
        "PCM_S8", "PCM_U8", "PCM_16", "ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM", "GSM610", "VOX_ADPCM",
        "G721_32", "G723_24", "G723_40", "NMS_ADPCM_16", "NMS_ADPCM_24", "NMS_ADPCM_32", "ALAC_16",
    }
)  # fmt: skip
_BUFFER_BYTES: Final = 1 << 16
_UNKNOWN_FRAMES: Final = 1 << 62  # libsndfile gives 2**63 - 1 where a stream does not say its length
_LOSSY: Final = frozenset({"OPUS", "VORBIS", "MPEG_LAYER_I", "MPEG_LAYER_II", "MPEG_LAYER_III"})


class SndfileDecoder:
    """Reads a file by libsndfile.

    raw: the rate in Hz and the subtype of a file without a header.
    frames: how many there are, where libsndfile cannot know.

    Raises:
        InvalidAudioError: libsndfile does not read it; here, and in `read`.
    """

    def __init__(
        self, file: io.RawIOBase, *, raw: tuple[int, str] | None = None, frames: int | None = None
    ) -> None:
        import soundfile

        how: dict[str, Any] = {}
        if raw is not None:
            how = {"samplerate": raw[0], "channels": 1, "subtype": raw[1], "format": "RAW"}
        try:
            # Buffered, as libsndfile reads MP3 by the frame, and each read is a call into Python.
            self._sound = soundfile.SoundFile(io.BufferedReader(file, _BUFFER_BYTES), **how)
        # TypeError: soundfile wants a rate where it takes a file to have no header.
        except (soundfile.SoundFileError, RuntimeError, TypeError, ValueError, OverflowError) as error:
            raise _unreadable(error) from error
        self.sample_rate, self.channels = int(self._sound.samplerate), int(self._sound.channels)
        known = 0 <= self._sound.frames < _UNKNOWN_FRAMES
        self.frames = frames if frames is not None else int(self._sound.frames) if known else None
        self.is_16_bit = self._sound.subtype in _SMALL_SAMPLES
        self.is_float = self._sound.subtype in ("FLOAT", "DOUBLE")
        self.is_lossy = self._sound.subtype in _LOSSY
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
        """Give back what libsndfile holds."""
        self._sound.close()


def _unreadable(error: Exception) -> InvalidAudioError:
    # libsndfile's own words, without soundfile's, which show the Python object it was given.
    reason = str(getattr(error, "error_string", error)).rstrip(".")
    return InvalidAudioError(
        f"is damaged or not an audio file that can be read ({reason}): copy it again, "
        "or convert it to WAV, FLAC, OGG or MP3"
    )
