"""Scores with a meaning: calibrated log-likelihood ratios, and how often strangers reach them.

    backend = default_backend()
    llr = backend.score(probe, [prints_of_one, prints_of_another])
    among = standing(backend.score(probe, cohort))
    accepted = llr.max() >= backend.threshold_for(0.01, gallery_size, among)

The plain embeddings are all that it needs; a record need not be made anew when the fit is.
"""

from voiceprint.scoring.backend import Backend, Calibration, Prepared, default_backend
from voiceprint.scoring.fitting import Pieces, fit_backend, recalibrate
from voiceprint.scoring.plda import Plda, fit_plda
from voiceprint.scoring.tail import ImpostorTail, Standing, fit_tail, standing

__all__ = [
    "Backend",
    "Calibration",
    "ImpostorTail",
    "Pieces",
    "Plda",
    "Prepared",
    "Standing",
    "default_backend",
    "fit_backend",
    "fit_plda",
    "fit_tail",
    "recalibrate",
    "standing",
]
