"""Scores with a meaning: calibrated log-likelihood ratios, and how often strangers reach them.

    backend = default_backend()
    llr = backend.score(probe, [prints_of_one, prints_of_another])
    among = backend.standing(backend.score(probe, cohort))
    accepted = llr.max() >= backend.threshold_for(0.01, gallery_size, among)

The plain embeddings are all that it needs; a record need not be made anew when the fit is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from voiceprint.scoring.backend import Backend, Calibration, Prepared, backend_for, default_backend
from voiceprint.scoring.plda import Plda, fit_plda
from voiceprint.scoring.posterior import probabilities
from voiceprint.scoring.tail import ImpostorTail, Standing, fit_tail, standing

if TYPE_CHECKING:
    from voiceprint.scoring.fitting import Pieces, fit_backend, recalibrate

__all__ = [
    "Backend",
    "Calibration",
    "ImpostorTail",
    "Pieces",
    "Plda",
    "Prepared",
    "Standing",
    "backend_for",
    "default_backend",
    "fit_backend",
    "fit_plda",
    "fit_tail",
    "probabilities",
    "recalibrate",
    "standing",
]


def __getattr__(name: str) -> Any:
    # Fitting needs scipy, which takes long to import and is not in a slim install.
    if name in ("Pieces", "fit_backend", "recalibrate"):
        from voiceprint.scoring import fitting

        return getattr(fitting, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
