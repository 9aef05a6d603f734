"""The same speech under other conditions: through a simulated telephone line, or in noise.

A condition has a name of one line, so that it fits an option, a file and the head of a table:

    as-is                       nothing is done
    telephone                   8 kHz, 300 to 3400 Hz, G.711 mu-law
    telephone:snr=20            and white noise on the line, 20 dB under the speech
    telephone:band=full         the whole band of an 8 kHz line, 0 to 4000 Hz
    telephone:law=alaw,snr=15   several at once
    noise:snr=10                white noise at the full rate, 10 dB under the speech

What is done depends on the audio and the condition alone: the noise is seeded by both.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from voiceprint.audio.io import buffers, g711
from voiceprint.audio.speech import vad
from voiceprint.errors import InvalidArgumentError, InvalidAudioError

Audio = npt.NDArray[np.float32]

Kind = Literal["as-is", "telephone", "noise"]
Band = Literal["narrow", "full"]

LINE_RATE: Final = 8000
"""The sample rate of a telephone line, Hz."""

NARROW_HZ: Final = (300.0, 3400.0)
"""Where the band of an analog line lies 3 dB down (ITU-T G.120 and before)."""

_FILTER_ORDER: Final = 4
_LEAST_SNR_DB, _MOST_SNR_DB = -20.0, 80.0
_KEYS: Final[dict[str, tuple[str, ...]]] = {
    "as-is": (),
    "telephone": ("snr", "band", "law"),
    "noise": ("snr",),
}


@dataclass(frozen=True)
class Condition:
    """One condition; `str` of it is its name, and `parse` reads that.

    kind: "as-is", "telephone" or "noise".
    snr_db: power of the speech over that of white noise that is added, dB in -20..80; the speech is
        where the VAD hears it, on a telephone after the band is cut. None adds none.
    band: of a telephone, "narrow" for 300 to 3400 Hz or "full" for all that 8 kHz carry.
    law: of a telephone's G.711, "mulaw" or "alaw".

    Raises `InvalidArgumentError` where these do not go together.
    """

    kind: Kind = "as-is"
    snr_db: float | None = None
    band: Band = "narrow"
    law: g711.Law = "mulaw"

    def __post_init__(self) -> None:
        if self.kind not in _KEYS:
            raise _unknown(str(self.kind))
        if self.band not in get_args(Band):
            raise InvalidArgumentError(f"band must be narrow or full, not {self.band!r}")
        if self.law not in get_args(g711.Law):
            raise InvalidArgumentError(f"law must be mulaw or alaw, not {self.law!r}")
        if self.snr_db is None:
            if self.kind == "noise":
                raise InvalidArgumentError("The condition noise needs its level, such as noise:snr=10.")
        elif not _LEAST_SNR_DB <= self.snr_db <= _MOST_SNR_DB:  # NaN is refused as well
            raise InvalidArgumentError(
                f"snr must be a number of {_LEAST_SNR_DB:g} to {_MOST_SNR_DB:g} dB, not {self.snr_db}"
            )
        if self.kind == "as-is" and self.snr_db is not None:
            raise InvalidArgumentError("The condition as-is adds no noise: take noise or telephone for that.")
        if self.kind != "telephone" and (self.band, self.law) != ("narrow", "mulaw"):
            raise InvalidArgumentError(f"A band and a law belong to telephone, not to {self.kind}.")

    @classmethod
    def parse(cls, text: str) -> Condition:
        """The condition of a name such as "telephone:snr=20". Raises `InvalidArgumentError`."""
        kind, _, rest = text.strip().partition(":")
        if kind not in _KEYS:
            raise _unknown(text)
        given: dict[str, str] = {}
        for item in rest.split(",") if rest else ():
            key, equals, value = (part.strip() for part in item.partition("="))
            if not equals or key not in _KEYS[kind] or key in given:
                allowed = ", ".join(f"{name}=..." for name in _KEYS[kind]) or "nothing"
                raise InvalidArgumentError(
                    f"{item!r} in the condition {text!r} is not understood: {kind} takes {allowed}, each once"
                )
            given[key] = value
        snr_db = None
        if "snr" in given:
            try:
                snr_db = float(given["snr"])
            except ValueError:
                raise InvalidArgumentError(
                    f"snr in the condition {text!r} must be a number of dB, such as snr=20"
                ) from None
        band, law = given.get("band", "narrow"), given.get("law", "mulaw")
        return cls(kind, snr_db, band, law)  # type: ignore[arg-type]  # __post_init__ checks them

    def __str__(self) -> str:
        items = []
        if self.band != "narrow":
            items.append(f"band={self.band}")
        if self.law != "mulaw":
            items.append(f"law={self.law}")
        if self.snr_db is not None:
            items.append(f"snr={self.snr_db:g}")
        return self.kind + (":" + ",".join(items) if items else "")

    def apply(self, audio: Audio, seed: int = 0) -> Audio:
        """The audio as it sounds under this condition.

        Args:
            audio: float32[n] in [-1, 1] at 16 kHz, n >= 1, as from `to_mono`.
            seed: for another noise on the same audio.

        Returns:
            float32[n] in [-1, 1] at 16 kHz; under "as-is" `audio` itself.

        Raises:
            InvalidAudioError: `audio` is not float32[n], n >= 1.
        """
        if (
            not isinstance(audio, np.ndarray)
            or audio.dtype != np.float32
            or audio.ndim != 1
            or not audio.size
        ):
            raise InvalidAudioError("A condition is applied to float32[n] at 16 kHz: use to_mono first")
        if self.kind == "as-is":
            return audio
        if self.kind == "noise":
            return np.clip(self._with_noise(audio, audio, seed), -1.0, 1.0)
        line = buffers.resample(audio, buffers.SAMPLE_RATE, LINE_RATE)
        if self.band == "narrow":
            line = _band_limited(line)
        line = self._with_noise(line, audio, seed)
        pcm = np.rint(np.clip(line, -1.0, 1.0) * 32767.0).astype(np.int16)
        heard = g711.decode(g711.encode(pcm, self.law), self.law).astype(np.float32) / np.float32(32768.0)
        back = buffers.resample(heard, LINE_RATE, buffers.SAMPLE_RATE)[: len(audio)]
        return np.pad(back, (0, len(audio) - len(back)))

    def _with_noise(self, signal: Audio, audio: Audio, seed: int) -> Audio:
        """`signal`, which is `audio` at its own or the line's rate, and the noise."""
        if self.snr_db is None:
            return signal
        mask = vad.speech_mask(audio)[:: round(len(audio) / len(signal))][: len(signal)]
        speech = signal[: len(mask)][mask] if mask.any() else signal
        power = float(np.square(speech, dtype=np.float64).mean())
        noise = self._generator(audio, seed).standard_normal(len(signal), dtype=np.float32)
        noise *= np.float32(math.sqrt(power) * 10.0 ** (-self.snr_db / 20.0))
        return np.asarray(signal + noise, dtype=np.float32)

    def _generator(self, audio: Audio, seed: int) -> np.random.Generator:
        digest = hashlib.sha256(f"{self}\n{seed}\n".encode())
        digest.update(np.ascontiguousarray(audio, dtype="<f4").data)
        return np.random.default_rng(int.from_bytes(digest.digest()[:16], "little"))


AS_IS: Final = Condition()
"""The condition that changes nothing."""


def _unknown(text: str) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"{text[:80]!r} is not a condition: give as-is, telephone, telephone:snr=20 or noise:snr=10"
    )


def _band_limited(line: Audio) -> Audio:
    """float32[n] at 8 kHz under the magnitude of a Butterworth band pass of order 4, without its delay."""
    low, high = NARROW_HZ
    tail = LINE_RATE // 8  # silence that the filter rings out into, before it would come round to the start
    length = 1 << (len(line) + tail - 1).bit_length()
    spectrum = np.fft.rfft(line, length)
    frequency = np.fft.rfftfreq(length, 1.0 / LINE_RATE)
    with np.errstate(divide="ignore"):
        offset = np.abs((frequency**2 - low * high) / (frequency * (high - low)))
        spectrum *= 1.0 / np.sqrt(1.0 + offset ** (2 * _FILTER_ORDER))
    return np.asarray(np.fft.irfft(spectrum, length)[: len(line)], dtype=np.float32)
