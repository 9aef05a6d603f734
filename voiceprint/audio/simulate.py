"""Simulation of other conditions: speech through a telephone line, or in noise.

The name of a condition fits an option, a file and a table header:

    as-is                       unchanged
    telephone                   8 kHz, 300 to 3400 Hz, G.711 mu-law
    telephone:snr=20            plus white noise on the line, 20 dB below the speech
    telephone:band=full         the whole band of an 8 kHz line, 0 to 4000 Hz
    telephone:law=alaw,snr=15   several options
    noise:snr=10                white noise at the full rate, 10 dB below the speech

The result depends on audio and condition only: both seed the noise.
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
"""-3 dB frequencies of an analog line (ITU-T G.120 and before)."""

_FILTER_ORDER: Final = 4
_MIN_SNR_DB, _MAX_SNR_DB = -20.0, 80.0
_KEYS: Final[dict[str, tuple[str, ...]]] = {
    "as-is": (),
    "telephone": ("snr", "band", "law"),
    "noise": ("snr",),
}


@dataclass(frozen=True)
class Condition:
    """A condition; `str` gives its name, and `parse` reads the name.

    kind: "as-is", "telephone" or "noise".
    snr_db: power of the speech (by the VAD, on a telephone after the band limit) over that of added white
        noise, dB in -20..80; None adds no noise.
    band: of a telephone, "narrow" for 300 to 3400 Hz or "full" for 0 to 4000 Hz.
    law: G.711 variant of a telephone, "mulaw" or "alaw".

    Raises `InvalidArgumentError` for an invalid combination.
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
        elif not _MIN_SNR_DB <= self.snr_db <= _MAX_SNR_DB:  # True for NaN as well
            raise InvalidArgumentError(
                f"snr must be a number of {_MIN_SNR_DB:g} to {_MAX_SNR_DB:g} dB, not {self.snr_db}"
            )
        if self.kind == "as-is" and self.snr_db is not None:
            raise InvalidArgumentError("The condition as-is adds no noise: take noise or telephone for that.")
        if self.kind != "telephone" and (self.band, self.law) != ("narrow", "mulaw"):
            raise InvalidArgumentError(f"A band and a law belong to telephone, not to {self.kind}.")

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Parse a name such as "telephone:snr=20". Raises `InvalidArgumentError`."""
        kind, _, rest = text.strip().partition(":")
        if kind not in _KEYS:
            raise _unknown(text)
        options: dict[str, str] = {}
        for item in rest.split(",") if rest else ():
            key, equals, value = (part.strip() for part in item.partition("="))
            if not equals or key not in _KEYS[kind] or key in options:
                allowed = ", ".join(f"{name}=..." for name in _KEYS[kind]) or "nothing"
                raise InvalidArgumentError(
                    f"{item!r} in the condition {text!r} is not understood: {kind} takes {allowed}, each once"
                )
            options[key] = value
        snr_db = None
        if "snr" in options:
            try:
                snr_db = float(options["snr"])
            except ValueError:
                raise InvalidArgumentError(
                    f"snr in the condition {text!r} must be a number of dB, such as snr=20"
                ) from None
        band, law = options.get("band", "narrow"), options.get("law", "mulaw")
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
        """The audio under this condition.

        Args:
            audio: float32[n] in [-1, 1] at 16 kHz, n >= 1, as from `to_mono`.
            seed: varies the noise on the same audio.

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
            line = _limit_band(line)
        line = self._with_noise(line, audio, seed)
        pcm = np.rint(np.clip(line, -1.0, 1.0) * 32767.0).astype(np.int16)
        received = g711.decode(g711.encode(pcm, self.law), self.law).astype(np.float32) / np.float32(32768.0)
        output = buffers.resample(received, LINE_RATE, buffers.SAMPLE_RATE)[: len(audio)]
        return np.pad(output, (0, len(audio) - len(output)))

    def _with_noise(self, signal: Audio, audio: Audio, seed: int) -> Audio:
        """`signal` plus noise; `signal` is `audio` at its own or the line's rate."""
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
"""The condition without any change."""


def _unknown(text: str) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"{text[:80]!r} is not a condition: give as-is, telephone, telephone:snr=20 or noise:snr=10"
    )


def _limit_band(line: Audio) -> Audio:
    """Apply the magnitude of a Butterworth band pass of order 4, without delay, to float32[n] at 8 kHz."""
    low, high = NARROW_HZ
    tail = LINE_RATE // 8  # zeros for the filter to ring out, before it would wrap around to the start
    length = 1 << (len(line) + tail - 1).bit_length()
    spectrum = np.fft.rfft(line, length)
    frequency = np.fft.rfftfreq(length, 1.0 / LINE_RATE)
    with np.errstate(divide="ignore"):
        offset = np.abs((frequency**2 - low * high) / (frequency * (high - low)))
        spectrum *= 1.0 / np.sqrt(1.0 + offset ** (2 * _FILTER_ORDER))
    return np.asarray(np.fft.irfft(spectrum, length)[: len(line)], dtype=np.float32)
