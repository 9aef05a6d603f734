"""Scores that mean something: how much likelier the audio is if the caller spoke than if a stranger did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voiceprint.errors import InvalidArgumentError
from voiceprint.scoring.model_file import read_model, write_model
from voiceprint.scoring.plda import Plda
from voiceprint.scoring.tail import ImpostorTail

Embeddings = NDArray[np.float32]


@dataclass(frozen=True)
class Calibration:
    """Raw log ratios to calibrated ones: scale * (raw - offset); scale > 0, so that no order changes."""

    scale: float = 1.0
    offset: float = 0.0

    def __call__(self, raw: NDArray[np.float64]) -> NDArray[np.float64]:
        """Calibrated natural log-likelihood ratios of the shape of `raw`."""
        return np.asarray(self.scale * (raw - self.offset))


@dataclass(frozen=True)
class Backend:
    """What is fitted, and how to score with it. `default_backend` gives the one of the package.

    encoder: name of the embedding space that it was fitted in.
    plda: the model of voices. calibration: of its log ratios. tail: of the impostors' calibrated scores.
    about: what it was fitted on: data, licence, seed, conditions; JSON.
    """

    encoder: str
    plda: Plda = field(repr=False)
    calibration: Calibration
    tail: ImpostorTail
    about: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def load(cls, path: str | Path) -> Backend:
        """The backend of a file.

        Raises:
            ConfigurationError: the file is damaged, of something else, of a newer version or not there.
        """
        kept = read_model(Path(path))
        return cls(
            encoder=kept.encoder,
            plda=Plda(*(kept.arrays[name].astype(np.float64) for name in ("mean", "transform", "between"))),
            calibration=Calibration(**kept.numbers["calibration"]),
            tail=ImpostorTail(**kept.numbers["tail"]),
            about=kept.about,
        )

    def save(self, path: str | Path) -> None:
        """Write the file, in one step; the same bytes for the same backend."""
        arrays = {
            "mean": self.plda.mean.astype(np.float32),
            "transform": self.plda.transform.astype(np.float32),
            "between": self.plda.between.astype(np.float32),
        }
        numbers = {
            "calibration": {"scale": self.calibration.scale, "offset": self.calibration.offset},
            "tail": self.tail.numbers(),
        }
        write_model(Path(path), self.encoder, arrays, numbers, dict(self.about))

    def score(self, probe: Embeddings, prints: Sequence[Embeddings]) -> NDArray[np.float64]:
        """The calibrated natural log-likelihood ratio of each caller, float64[callers].

        Args:
            probe: float32[d], the plain embedding of the audio.
            prints: of each caller the plain embeddings, float32[n, d], n >= 1. Several prints are one
                by their mean, as measured best; a caller with more prints is not favoured by their number.

        Raises:
            InvalidArgumentError: another dimension than the backend's, or no print of a caller.
        """
        dimension = len(self.plda.mean)
        if np.shape(probe) != (dimension,):
            raise InvalidArgumentError(f"The probe must be float32[{dimension}], not {np.shape(probe)}")
        for one in prints:
            if np.ndim(one) != 2 or np.shape(one)[1] != dimension or not len(one):
                raise InvalidArgumentError(
                    f"Prints of a caller must be float32[n >= 1, {dimension}], not {np.shape(one)}"
                )
        if not len(prints):
            return np.empty(0)
        counts = np.array([len(one) for one in prints])
        all_prints = self.plda.coordinates(np.concatenate(prints))
        starts = np.cumsum(counts) - counts
        means = np.add.reduceat(all_prints, starts, axis=0) / counts[:, None]
        raw = self.plda.log_ratio(means, np.ones_like(counts), self.plda.coordinates(probe[None])[0])
        return self.calibration(raw)

    def query(self, probe: Embeddings) -> Embeddings:
        """The unit vector, float32[d], to search an index of plain embeddings with; see `Plda.query`."""
        return self.plda.query(self.plda.coordinates(probe[None])[0])

    def fpir(self, llr: float, gallery_size: int) -> float:
        """The expected false-positive identification rate, 0..1, were this log ratio the threshold."""
        return self.tail.fpir(llr, gallery_size)

    def threshold_for(self, target_fpir: float, gallery_size: int) -> float:
        """The log ratio from which to accept, for so large a false-positive identification rate."""
        return self.tail.threshold_for(target_fpir, gallery_size)


@lru_cache(maxsize=1)
def default_backend() -> Backend:
    """The backend that comes with the package, read once. Raises `ConfigurationError`."""
    with as_file(files("voiceprint.scoring") / "default.npz") as path:
        return Backend.load(path)
