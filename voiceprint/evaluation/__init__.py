"""Measuring how well callers are recognized, on recordings of known speakers.

    from voiceprint.evaluation import Settings, evaluate

    report = evaluate("calls", Settings(durations_s=(3.0, 5.0)))
    report.runs[0].verification.eer  # Estimate(value=0.021, low=0.012, high=0.033)

`voiceprint evaluate` is the same on the command line. What is slow to import is loaded where it is used.
"""

from voiceprint.audio.simulate import Condition
from voiceprint.evaluation.cache import EmbeddingCache
from voiceprint.evaluation.calibration import Calibrated, calibrate
from voiceprint.evaluation.calibration_fit import Measured, TargetRates
from voiceprint.evaluation.evaluate import evaluate
from voiceprint.evaluation.report import Estimate, Report, RunResult, Skip
from voiceprint.evaluation.scoring import CalibratedScorer, CosineScorer, Scorer, TargetScorer
from voiceprint.evaluation.settings import Run, Settings, parse_enrollment
from voiceprint.evaluation.traffic import Accepted, CalibratedByCalls, calibrate_by_calls

__all__ = [
    "Accepted",
    "Calibrated",
    "CalibratedByCalls",
    "CalibratedScorer",
    "Condition",
    "CosineScorer",
    "EmbeddingCache",
    "Estimate",
    "Measured",
    "Report",
    "Run",
    "RunResult",
    "Scorer",
    "Settings",
    "Skip",
    "TargetRates",
    "TargetScorer",
    "calibrate",
    "calibrate_by_calls",
    "evaluate",
    "parse_enrollment",
]
