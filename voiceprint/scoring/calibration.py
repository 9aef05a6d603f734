"""What recordings of real traffic add to the statistics of a gallery, and the file that holds it.

A gallery's own callers show how alike strangers are. Its real traffic may differ: other lines than those of
enrollment, other people than those who enroll. `voiceprint calibrate` measures by how much.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from voiceprint._files import open_regular, replacement
from voiceprint.errors import ConfigurationError
from voiceprint.scoring.impostors import ImpostorStatistics

FORMAT: Final = "voiceprint-calibration"
_LARGEST: Final = 1 << 20  # bytes
_WIDEST: Final = 1e6  # number in a calibration, or one through it: beyond, scores would not be finite

SCALE: Final = 3.6
OFFSET: Final = 1.6
"""Log-likelihood ratio of a score that is one deviation further above the mean of different callers, and the
deviations where it is 0. Fitted to three of four populations each time, the scale is 3.1 to 4.2 and the
offset 1.5 to 1.7 (benchmarks/accuracy.py)."""


class Calibration(BaseModel):
    """Scores in deviations to log-likelihood ratios, and strangers as traffic shows them.

    scale (> 0), offset: llr = scale * (deviations - offset).
    stranger_shift, stranger_spread (> 0): the best scores of real strangers, against those of left-out
        callers: how many of the latter's deviations higher their mean is, and the ratio of the deviations.
    space: of the embeddings; empty for any. about: what was measured, for people.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    scale: float = Field(default=SCALE, ge=1.0 / _WIDEST, le=_WIDEST, allow_inf_nan=False)
    offset: float = Field(default=OFFSET, ge=-_WIDEST, le=_WIDEST, allow_inf_nan=False)
    stranger_shift: float = Field(default=0.0, ge=-_WIDEST, le=_WIDEST, allow_inf_nan=False)
    stranger_spread: float = Field(default=1.0, ge=1.0 / _WIDEST, le=_WIDEST, allow_inf_nan=False)
    space: str = ""
    about: dict[str, Any] = Field(default_factory=dict, repr=False)
    format: Literal["voiceprint-calibration"] = FORMAT
    version: Literal[3] = 3

    def as_observed(self, score: float, statistics: ImpostorStatistics) -> float:
        """A score of real traffic on the scale of the gallery's left-out callers."""
        middle = statistics.best_mean + self.stranger_shift * statistics.best_std
        return statistics.best_mean + (score - middle) / self.stranger_spread

    def as_expected(self, score: float, statistics: ImpostorStatistics) -> float:
        """The inverse of `as_observed`."""
        middle = statistics.best_mean + self.stranger_shift * statistics.best_std
        return middle + (score - statistics.best_mean) * self.stranger_spread

    def save(self, path: str | Path) -> None:
        """Write the file, in one step."""
        fields = self.model_dump()
        head = {name: fields.pop(name) for name in ("format", "version")}
        with replacement(Path(path), ours=is_calibration, kind="a calibration") as file:
            file.write((json.dumps(head | fields, indent=2) + "\n").encode())

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """The calibration of a file.

        Raises:
            ConfigurationError: no such file, or a file of something else or another version.
        """
        try:
            with open_regular(Path(path)) as file:
                text = file.read(_LARGEST + 1)
        except (OSError, ValueError) as error:  # ValueError: a path with a null byte
            why = str(getattr(error, "strerror", None) or error).removesuffix(".")
            raise ConfigurationError(f"VOICE_CALIBRATION_PATH: {path} cannot be read: {why}.") from error
        try:
            return cls.model_validate_json(text[:_LARGEST])
        except ValidationError as error:
            raise ConfigurationError(
                f"VOICE_CALIBRATION_PATH: {path} is no calibration of this version: write one with "
                "`voiceprint calibrate`, or unset it."
            ) from error


def is_calibration(head: bytes) -> bool:
    """Whether the first bytes of a file are those of a calibration."""
    return FORMAT.encode() in head


def calibration_for(space: str, path: str | None) -> Calibration:
    """The calibration of a file, or the package's where no path is given.

    Raises:
        ConfigurationError: the file cannot be used, or is for another space.
    """
    if path is None:
        return _PACKAGE
    calibration = _loaded(path, *_version(path))
    if calibration.space not in ("", space):
        raise ConfigurationError(
            f"{path} calibrates embeddings of {calibration.space!r}, and the encoder's are of {space!r}: "
            "calibrate with this encoder, or unset VOICE_CALIBRATION_PATH."
        )
    return calibration


def _version(path: str) -> tuple[int, int]:
    """Numbers that change with the file."""
    try:
        stat = Path(path).stat()
    except (OSError, ValueError):
        return 0, 0  # reading it says what is wrong
    return stat.st_mtime_ns, stat.st_ino


@lru_cache(maxsize=8)
def _loaded(path: str, *_: int) -> Calibration:
    return Calibration.load(path)


_PACKAGE: Final = Calibration()
