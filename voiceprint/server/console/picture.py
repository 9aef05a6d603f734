"""`ScorePicture`: where scores lie among those of strangers and of known callers, as an SVG's coordinates."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from voiceprint.identification.acceptance import AcceptanceRule
from voiceprint.identification.left_out import LeftOutScores, Scores
from voiceprint.recognizer import OpusAgentVoiceRecognizer

TARGETS: Final = tuple(
    digit * power
    for power in (1e-4, 1e-3, 1e-2, 1e-1)
    for digit in (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
    if digit * power <= 0.5
)
"""Target FPIRs of the slider, 0.01 to 50 %, in steps of the same ratio that are round numbers."""

_WIDTH, _HEIGHT = 1000, 100  # of the coordinates of the curves
_POINTS: Final = 160  # of a curve: finer than the pixels of a telephone
_MARGIN: Final = 0.08  # of the range, on both sides


class Step(NamedTuple):
    """A target: its llr as the threshold, and the FNIR in this gallery. x: place of the line in percent.

    strangers: left-out callers who reach it as strangers.
    """

    target_fpir: float
    llr: float
    x: float
    fnir: float | None
    strangers: int


class ScorePicture(NamedTuple):
    """The picture.

    scale: "llr" or "similarity", the score of the axis. low, high: its ends. line: the threshold; None where
    no score of this scale decides. strangers, known: the curves, as paths of 1000 by 100; empty without
    scores. *_ticks: places of the scores, in percent of the width, at most 120. axis: labels and places.
    """

    scale: str
    low: float
    high: float
    line: float | None
    strangers: str
    known: str
    stranger_ticks: list[float]
    known_ticks: list[float]
    axis: list[tuple[str, float]]
    stranger_scores: Scores
    known_scores: Scores
    scores: LeftOutScores

    def x(self, score: float) -> float:
        """The place of a score, in percent of the width, at the edge where it is beyond."""
        share = (score - self.low) / (self.high - self.low)
        return round(100.0 * min(max(share, 0.0), 1.0), 2)

    def steps(self) -> list[Step]:
        """The targets to choose from, the strictest first; empty where the gallery is too small."""
        if not self.scores.has_llrs:
            return []
        found = []
        for target in TARGETS:
            llr = self.scores.threshold(target)
            above = int((self.scores.strangers >= llr).sum())
            found.append(Step(target, llr, self.x(llr), self.scores.fnir(llr), above))
        return found


def picture_of(recognizer: OpusAgentVoiceRecognizer, *, by_llr: bool = False) -> ScorePicture | None:
    """The picture of a gallery; None where it has too few callers. Not for the event loop.

    by_llr: on the scale of the targets also where a cosine decides.
    """
    scores = recognizer.left_out_scores()
    rule = AcceptanceRule.of_identification(recognizer.config, recognizer.encoder.name, None)
    if scores.has_llrs and (by_llr or rule.target is not None or rule.calibrated):
        line = None
        if rule.target is not None:
            line = scores.threshold(rule.target)
        return _picture("llr", scores, scores.strangers, scores.known, line)
    if scores.callers < 2 or by_llr:
        return None
    line = rule.threshold if rule.target is None and not rule.calibrated else None
    return _picture("similarity", scores, scores.stranger_similarities, scores.known_similarities, line)


def _picture(
    scale: str, scores: LeftOutScores, strangers: Scores, known: Scores, line: float | None
) -> ScorePicture:
    values = np.concatenate([strangers, known, [] if line is None else [line]])
    if scale == "llr":
        # With the thresholds of the slider's whole range.
        values = np.concatenate([values, [scores.threshold(TARGETS[0]), scores.threshold(TARGETS[-1])]])
    margin = _MARGIN * max(float(np.ptp(values)), 0.1)
    low, high = float(values.min()) - margin, float(values.max()) + margin
    if scale == "similarity":
        high = min(high, 1.0)
    picture = ScorePicture(
        scale, low, high, line, _curve(strangers, low, high), _curve(known, low, high), [], [], [],
        strangers, known, scores,
    )  # fmt: skip
    return picture._replace(
        stranger_ticks=[picture.x(score) for score in _some(strangers)],
        known_ticks=[picture.x(score) for score in _some(known)],
        axis=[(label, picture.x(value)) for label, value in _axis(low, high)],
    )


def _curve(scores: Scores, low: float, high: float) -> str:
    """The density of scores as a path, by normal kernels of Silverman's width; empty without scores.

    Its greatest value is the height: strangers and known callers differ in number.
    """
    if not len(scores):
        return ""
    deviation = min(float(scores.std()), float(np.subtract(*np.percentile(scores, (75, 25)))) / 1.34)
    width = max(0.9 * deviation * len(scores) ** -0.2, (high - low) / 60)
    grid = np.linspace(low, high, _POINTS)
    density: NDArray[np.float64] = np.exp(-0.5 * ((grid[:, None] - scores) / width) ** 2).sum(axis=1)
    heights = _HEIGHT * (1.0 - 0.96 * density / density.max())
    seen = np.flatnonzero(heights < _HEIGHT - 0.1)
    places = _WIDTH * seen / (_POINTS - 1)
    points = [f"{x:.1f},{y:.1f}" for x, y in zip(places.tolist(), heights[seen].tolist(), strict=True)]
    return f"M{places[0]:.1f},{_HEIGHT} L{' L'.join(points)} L{places[-1]:.1f},{_HEIGHT}"


def _some(scores: Scores, most: int = 120) -> list[float]:
    """A sample of at most `most` scores, equally far apart in rank."""
    ranked = np.sort(scores)
    if len(ranked) > most:
        ranked = ranked[np.linspace(0, len(ranked) - 1, most).round().astype(np.int64)]
    return [float(score) for score in ranked]


def _axis(low: float, high: float) -> list[tuple[str, float]]:
    """Four to eight round values within the range, and their labels."""
    rough = (high - low) / 6
    power = 10.0 ** np.floor(np.log10(rough))
    step = next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= rough)
    digits = max(0, -int(np.floor(np.log10(step))))
    first = np.ceil(low / step)
    values = [float(number * step) for number in np.arange(first, np.floor(high / step) + 1)]
    return [(f"{value + 0.0:.{digits}f}".replace("-", "−"), value) for value in values]
