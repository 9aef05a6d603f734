"""Log-likelihood ratios of callers, and how often strangers reach them, by statistics of the gallery.

scorer = GalleryScorer(projection_for("resemblyzer", 256), cohort)
llrs = scorer.llrs(probe, callers)
accepted = scorer.fpir(llrs.max(), gallery_size) <= 0.01
"""

from voiceprint.scoring.calibration import Calibration, calibration_for
from voiceprint.scoring.impostors import ImpostorStatistics, impostor_statistics
from voiceprint.scoring.posterior import probabilities
from voiceprint.scoring.projection import Prior, Projection, projection_for
from voiceprint.scoring.scorer import COHORT, MIN_CALLERS, CallerPrints, GalleryScorer

__all__ = [
    "COHORT",
    "MIN_CALLERS",
    "Calibration",
    "CallerPrints",
    "GalleryScorer",
    "ImpostorStatistics",
    "Prior",
    "Projection",
    "calibration_for",
    "impostor_statistics",
    "probabilities",
    "projection_for",
]
