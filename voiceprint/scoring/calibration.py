"""Corrections of a gallery's statistics fitted to real traffic, and their file.

A gallery's own callers stand for strangers. Real traffic may differ: other lines than those of enrollment,
other people than those who enroll. `voiceprint calibrate` measures the difference.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from voiceprint._files import open_regular, replacement
from voiceprint.errors import ConfigurationError
from voiceprint.scoring.impostors import ImpostorStatistics, Number

FORMAT: Final = "voiceprint-calibration"
_MAX_BYTES: Final = 1 << 20
_MAX_VALUE: Final = 1e6  # of a number in a calibration, and of its inverse: beyond, scores would overflow

SCALE: Final = 3.6
OFFSET: Final = 1.6
"""Log-likelihood ratio per deviation above the mean of different callers, and the deviations where it is 0.
Fitted to three of four populations in turn, the scale is 3.1 to 4.2 and the offset 1.5 to 1.7
(benchmarks/accuracy.py)."""


class Calibration(BaseModel):
    """The map from deviations to log-likelihood ratios, and the scores of strangers in real traffic.

    scale (> 0), offset: llr = scale * (deviations - offset).
    stranger_shift, stranger_spread (> 0): the best scores of real strangers relative to those of left-out
        callers: the difference of the means, in deviations of the latter, and the ratio of the deviations.
    space: of the embeddings; empty for any. about: how it was measured, for readers of the file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    scale: float = Field(default=SCALE, ge=1.0 / _MAX_VALUE, le=_MAX_VALUE, allow_inf_nan=False)
    offset: float = Field(default=OFFSET, ge=-_MAX_VALUE, le=_MAX_VALUE, allow_inf_nan=False)
    stranger_shift: float = Field(default=0.0, ge=-_MAX_VALUE, le=_MAX_VALUE, allow_inf_nan=False)
    stranger_spread: float = Field(default=1.0, ge=1.0 / _MAX_VALUE, le=_MAX_VALUE, allow_inf_nan=False)
    space: str = ""
    about: dict[str, Any] = Field(default_factory=dict, repr=False)
    format: Literal["voiceprint-calibration"] = FORMAT
    version: Literal[3] = 3

    def llr(self, deviations: Number) -> Number:
        """The log-likelihood ratios of scores in deviations."""
        return self.scale * (deviations - self.offset)

    def deviations(self, llr: Number) -> Number:
        """The inverse of `llr`."""
        return llr / self.scale + self.offset

    def to_gallery_score(self, score: float, statistics: ImpostorStatistics) -> float:
        """A score of real traffic on the scale of the gallery's left-out callers."""
        middle = statistics.best_mean + self.stranger_shift * statistics.best_std
        return statistics.best_mean + (score - middle) / self.stranger_spread

    def to_traffic_score(self, score: float, statistics: ImpostorStatistics) -> float:
        """The inverse of `to_gallery_score`."""
        middle = statistics.best_mean + self.stranger_shift * statistics.best_std
        return middle + (score - statistics.best_mean) * self.stranger_spread

    def save(self, path: str | Path) -> None:
        """Write the file atomically."""
        fields = self.model_dump()
        head = {name: fields.pop(name) for name in ("format", "version")}
        with replacement(Path(path), ours=is_calibration, kind="a calibration") as file:
            file.write((json.dumps(head | fields, indent=2) + "\n").encode())

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read a calibration from a file.

        Raises:
            ConfigurationError: the file does not exist, or is no calibration of this version.
        """
        try:
            with open_regular(Path(path)) as file:
                text = file.read(_MAX_BYTES + 1)
        except (OSError, ValueError) as error:  # ValueError: a path with a null byte
            why = str(getattr(error, "strerror", None) or error).removesuffix(".")
            raise ConfigurationError(f"VOICE_CALIBRATION_PATH: {path} cannot be read: {why}.") from error
        try:
            return cls.model_validate_json(text[:_MAX_BYTES])
        except ValidationError as error:
            raise ConfigurationError(
                f"VOICE_CALIBRATION_PATH: {path} is no calibration of this version: write one with "
                "`voiceprint calibrate`, or unset it."
            ) from error


def is_calibration(head: bytes) -> bool:
    """Whether a file that starts with these bytes is a calibration."""
    return FORMAT.encode() in head


def calibration_for(space: str, path: str | None) -> Calibration:
    """The calibration of a file, or the package's for None.

    Raises:
        ConfigurationError: the file is unusable, or of another space.
    """
    if path is None:
        return _PACKAGE
    calibration = _load_cached(path, *_file_version(path))
    if calibration.space not in ("", space):
        raise ConfigurationError(
            f"{path} calibrates embeddings of {calibration.space!r}, and the encoder's are of {space!r}: "
            "calibrate with this encoder, or unset VOICE_CALIBRATION_PATH."
        )
    return calibration


def _file_version(path: str) -> tuple[int, int]:
    """Modification time and inode number of the file."""
    try:
        stat = Path(path).stat()
    except (OSError, ValueError):
        return 0, 0  # `Calibration.load` raises the error
    return stat.st_mtime_ns, stat.st_ino


@lru_cache(maxsize=8)
def _load_cached(path: str, *_: int) -> Calibration:
    return Calibration.load(path)


_PACKAGE: Final = Calibration()
