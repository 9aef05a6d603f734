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

from voiceprint.errors import ConfigurationError, InvalidArgumentError
from voiceprint.scoring.model_file import read_model, write_model
from voiceprint.scoring.plda import Plda
from voiceprint.scoring.tail import ImpostorTail, Standing

Embeddings = NDArray[np.float32]

_ROUNDING = 1e-4


@dataclass(frozen=True)
class Calibration:
    """Raw log ratios to calibrated ones: scale * (raw - offset); scale > 0, so that no order changes."""

    scale: float = 1.0
    offset: float = 0.0

    def __call__(self, raw: NDArray[np.float64]) -> NDArray[np.float64]:
        """Calibrated natural log-likelihood ratios of the shape of `raw`."""
        return np.asarray(self.scale * (raw - self.offset))


@dataclass(frozen=True)
class Prepared:
    """Callers ready to be scored.

    means: of the coordinates of each one's prints, float64[callers, k]. shares: what each takes off the log
    ratio with any probe, float64[callers].
    """

    means: NDArray[np.float64] = field(repr=False)
    shares: NDArray[np.float64] = field(repr=False)

    def __len__(self) -> int:
        return len(self.means)


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
            plda=Plda(
                mean=kept.arrays["mean"].astype(np.float64),
                transform=kept.arrays["transform"].astype(np.float64),
                between=kept.arrays["between"].astype(np.float64),
                power=kept.numbers["plda"]["power"],
            ),
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
            "plda": {"power": self.plda.power},
            "calibration": {"scale": self.calibration.scale, "offset": self.calibration.offset},
            "tail": self.tail.numbers(),
        }
        write_model(Path(path), self.encoder, arrays, numbers, dict(self.about))

    def prepare(self, prints: Sequence[Embeddings]) -> Prepared:
        """Callers made ready to be scored many times, such as the cohort of a gallery.

        prints: of each caller the plain embeddings, float32[n, d], n >= 1.

        Raises:
            InvalidArgumentError: another dimension than the backend's, or no print of a caller.
        """
        dimension = len(self.plda.mean)
        for one in prints:
            if np.ndim(one) != 2 or np.shape(one)[1] != dimension or not len(one):
                raise InvalidArgumentError(
                    f"Prints of a caller must be float32[n >= 1, {dimension}], not {np.shape(one)}"
                )
        if not len(prints):
            return self._prepared(np.empty((0, len(self.plda.between))))
        counts = np.array([len(one) for one in prints])
        coordinates = self.plda.coordinates(np.concatenate(prints))
        means = np.add.reduceat(coordinates, np.cumsum(counts) - counts, axis=0) / counts[:, None]
        return self._prepared(means)

    def _prepared(self, means: NDArray[np.float64]) -> Prepared:
        return Prepared(means, self.plda.shares_of_callers(means))

    def score(
        self,
        probe: Embeddings,
        prints: Sequence[Embeddings] | Prepared,
        simulated: Sequence[Embeddings | None] | None = None,
    ) -> NDArray[np.float64]:
        """The calibrated natural log-likelihood ratio of each caller, float64[callers].

        Several prints of a caller are compared by their mean, as measured best; their number alone
        favours nobody.

        Args:
            probe: float32[d], the plain embedding of the audio.
            prints: of each caller the plain embeddings, float32[n, d], n >= 1; or `prepare` of these.
            simulated: of each caller, where there are any, embeddings of the enrolment on simulated lines,
                each averaged with the plain one. The better of both scores counts.

        Raises:
            InvalidArgumentError: another dimension than the backend's, or no print of a caller.
        """
        if np.shape(probe) != self.plda.mean.shape:
            raise InvalidArgumentError(
                f"The probe must be float32{[*self.plda.mean.shape]}, not {np.shape(probe)}"
            )
        return np.asarray(self.scores(probe[None], prints, simulated)[0])

    def scores(
        self,
        probes: Embeddings,
        prints: Sequence[Embeddings] | Prepared,
        simulated: Sequence[Embeddings | None] | None = None,
    ) -> NDArray[np.float64]:
        """`score` of every probe, float32[n, d], float64[n, callers]."""
        ready = prints if isinstance(prints, Prepared) else self.prepare(prints)
        places = self.plda.coordinates(probes)
        raw = self.plda.log_ratios(ready.means, places, ready.shares)
        if simulated is not None:
            if len(simulated) != len(ready):
                raise InvalidArgumentError(
                    f"Simulated prints of {len(simulated)} callers do not go with prints of {len(ready)}"
                )
            having = [number for number, one in enumerate(simulated) if one is not None]
            others = self.prepare([one for one in simulated if one is not None])
            raw[:, having] = np.maximum(
                raw[:, having], self.plda.log_ratios(others.means, places, others.shares)
            )
        return self.calibration(raw)

    def score_each(self, probe: Embeddings, embeddings: Embeddings) -> NDArray[np.float64]:
        """`score` of unit embeddings, float32[n, d], each as if it were all that is known of a caller.

        To six digits: for choosing whom to look at. float64[n].
        """
        return self.score(probe, self._prepared(self.plda.rough_coordinates(embeddings)))

    def index_vectors(self, embeddings: Embeddings) -> Embeddings:
        """Unit vectors, float32[n, k], to index prints and search for a probe: see `Plda.index_vectors`."""
        return self.plda.index_vectors(embeddings)

    def query(self, probe: Embeddings) -> Embeddings:
        """The unit vector, float32[d], to search an index of plain embeddings with; see `Plda.query`."""
        return self.plda.query(self.plda.coordinates(probe[None])[0])

    def standing(self, scores: NDArray[np.floating]) -> Standing:
        """Where a probe's log ratios with a cohort, a sample of the gallery's callers, lie; float[n].

        The fewer there are, the more it is that of a usual probe.
        """
        return self.tail.standing(scores)

    def fpir(self, llr: float, gallery_size: int, standing: Standing | None = None) -> float:
        """The expected false-positive identification rate, 0..1, were this log ratio the threshold.

        standing: of the probe among strangers, by `standing` of its scores with a cohort, some 500 of the
            gallery's callers. Without it a usual probe is taken, which is off by a factor of up to
            ten: noise on both sides makes all voices more alike.
        """
        return self.tail.fpir(llr, gallery_size, standing)

    def threshold_for(self, target_fpir: float, gallery_size: int, standing: Standing | None = None) -> float:
        """The log ratio from which to accept, for so large a false-positive identification rate."""
        return self.tail.threshold_for(target_fpir, gallery_size, standing)

    def covers(self, embedding: Embeddings) -> bool:
        """Whether it is a vector as the encoder gives them: of its length, and without negative values.

        For any other, such as one from a test, a likelihood would mean nothing.
        """
        return np.shape(embedding) == self.plda.mean.shape and float(np.min(embedding)) >= -_ROUNDING


def backend_for(space: str, path: str | None = None) -> Backend | None:
    """The backend for embeddings of a space: that of a file, or by default the package's, if it has one.

    Raises:
        ConfigurationError: the file cannot be used, or is for another space.
    """
    if path is None:
        backend = default_backend()
        return backend if backend.encoder == space else None
    backend = _loaded(path, *_seen(path))
    if backend.encoder != space:
        raise ConfigurationError(
            f"{path} calibrates embeddings of {backend.encoder!r}, and the encoder's are of {space!r}: "
            "calibrate with this encoder, or unset VOICE_CALIBRATION_PATH."
        )
    return backend


def _seen(path: str) -> tuple[int, int]:
    """What changes with the file."""
    try:
        stat = Path(path).stat()
    except OSError:
        return 0, 0  # reading it says what is wrong
    return stat.st_mtime_ns, stat.st_ino


@lru_cache(maxsize=8)
def _loaded(path: str, *_: int) -> Backend:
    return Backend.load(path)


@lru_cache(maxsize=1)
def default_backend() -> Backend:
    """The backend that comes with the package, read once. Raises `ConfigurationError`."""
    with as_file(files("voiceprint.scoring") / "default.npz") as path:
        return Backend.load(path)
