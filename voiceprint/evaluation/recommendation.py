"""The recommendation of an evaluation: the best setting, and the effect of more enrollment audio."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from voiceprint.evaluation.embedding import RunEmbeddings
from voiceprint.evaluation.identification import Searcher
from voiceprint.evaluation.report import Estimate, OpenSet, Outcome, Recommendation, RunResult
from voiceprint.evaluation.scoring import Scorer, least_callers
from voiceprint.evaluation.settings import Run, Settings
from voiceprint.evaluation.tables import percent, rate

THRESHOLD: Final = "VOICE_SIMILARITY_THRESHOLD"
TARGET: Final = "VOICE_TARGET_FPIR"

ADVISED: Final = (0.01, 0.05)
"""Settings of `VOICE_TARGET_FPIR` compared with the configured setting."""

MAX_FPIR: Final = 0.05
"""FPIR of a recommended setting at most, unless `VOICE_TARGET_FPIR` is configured."""

LEAST_SPEAKERS: Final = 4
"""Fewest speakers for a comparison of numbers of prints: two callers and two strangers."""


def first_runs(settings: Settings) -> list[Run]:
    """The runs with a recommendation: under every condition the first duration and print count."""
    first = settings.durations_s[0], settings.prints[0]
    return [run for run in settings.runs() if (run.duration_s, run.prints) == first]


def with_more_prints(run: Run, settings: Settings) -> list[Run]:
    """The runs for the comparison with more prints: with the most, and with one more."""
    most = settings.more_prints or 0
    return [
        replace(run, prints=count)
        for count in dict.fromkeys((most, run.prints + 1))
        if most >= count > run.prints
    ]


@dataclass(frozen=True)
class Recommender:
    """Recommends settings from the results of the runs.

    scorers: of the results; the configured threshold is that of the first scorer with one.
    settings: with the configured target FPIR. runs: the `first_runs` and those `with_more_prints`.
    """

    scorers: Sequence[Scorer]
    settings: Settings
    runs: Mapping[Run, RunEmbeddings]

    def recommend(self, run: Run, results: Sequence[RunResult]) -> Recommendation:
        """The recommendation for one of the `first_runs`, by its results of every scorer."""
        measured = [
            one for result in results if result.open_set for one in _outcomes(result.open_set[-1], run)
        ]
        if not measured:
            text = "No strangers were measured, so no setting can be recommended."
            return Recommendation(str(run), None, (), None, None, (text,))
        variable, value = self._configured()
        current = next((one for one in measured if (one.variable, one.value) == (variable, value)), None)
        others = [
            one
            for one in measured
            if one is not current and (one.value in ADVISED if one.variable == TARGET else current is None)
        ]
        fitted = []
        if all(one.fpir.value > self._max_fpir for one in (current, *others) if one):
            plain = {scorer.name for scorer in self.scorers if not scorer.calibrated}
            fitted = [
                one for result in results if result.scorer in plain for one in _in_hindsight(result, run)
            ]
        others += fitted
        best = self._best(current, others or measured)
        fewer, more = self._prints_compared(run, best)
        sentences = [
            _at_current(current, _setting(variable, value), results[0]),
            *self._advice(current, others, best, fitted=best in fitted),
            *_targets_missed(measured),
            self._about_prints(run, best, fewer, more),
        ]
        return Recommendation(str(run), current, tuple(others), fewer, more, tuple(sentences))

    def _configured(self) -> tuple[str, float | None]:
        if self.settings.target_fpir is not None:
            return TARGET, self.settings.target_fpir
        return THRESHOLD, next((one.threshold for one in self.scorers if one.threshold is not None), None)

    @property
    def _max_fpir(self) -> float:
        return self.settings.target_fpir or MAX_FPIR

    def _best(self, current: Outcome | None, others: Sequence[Outcome]) -> Outcome:
        """The lowest FNIR among settings with an allowed FPIR; else the lowest FPIR.

        A current setting with an allowed FPIR is replaced only if the whole interval is allowed.
        """
        candidates = [*([current] if current else []), *others]
        allowed = [one for one in candidates if one.fpir.value <= self._max_fpir]
        if current in allowed:
            allowed = [
                one
                for one in allowed
                if one is current or (one.fpir.high or one.fpir.value) <= self._max_fpir
            ]
        if allowed:
            return min(allowed, key=lambda one: one.fnir.value)
        return min(candidates, key=lambda one: one.fpir.value)

    def _advice(
        self, current: Outcome | None, others: Sequence[Outcome], best: Outcome, *, fitted: bool
    ) -> list[str]:
        most = f"{100 * self._max_fpir:g} %"
        if best.fpir.value > self._max_fpir:
            first = (
                f"No setting measured names at most {most} of strangers. {best.setting} is nearest: "
                f"{_errors(best)}."
            )
        else:
            if best is current:
                size = " for galleries of this size" if best.variable == THRESHOLD else ""
                first = (
                    f"Keep it{size}: at most {most} of strangers are named, and no other setting measured "
                    "surely does so and misses fewer callers."
                )
            else:
                reason = f"the fewest callers missed with at most {most} of strangers named"
                first = f"Set {best.setting} to get {_errors(best)}: of those measured, {reason}."
            if best.fpir.high is not None and best.fpir.high > self._max_fpir:
                first += f" Strangers are few here: up to {percent(best.fpir.high)} named is possible."
            if fitted:
                first += f" It is fitted to these strangers, and counts where {TARGET} is not set."
        return [first, *(f"{one.setting} gives {_errors(one)}." for one in others if one is not best)]

    def _prints_compared(self, run: Run, best: Outcome) -> tuple[Outcome | None, Outcome | None]:
        """The recommended setting with the run's prints, and with more, of the same speakers and probes."""
        for more in with_more_prints(run, self.settings):
            embeddings = self.runs[more]
            if len(embeddings.names) >= max(LEAST_SPEAKERS, len(self.runs[run].names) / 2):
                few = embeddings.first_prints(run.prints)
                return self._outcome(few, run, best), self._outcome(embeddings, more, best)
        return None, None

    def _outcome(self, embeddings: RunEmbeddings, run: Run, at: Outcome) -> Outcome | None:
        """The outcome of a run under the setting of `at`."""
        for scorer in self.scorers:
            compared = embeddings.for_llrs() if scorer.calibrated else embeddings
            searcher = Searcher(compared, scorer, self.settings)
            size = searcher.speakers - searcher.held_out
            if size < least_callers(scorer):
                continue
            threshold = None if scorer.calibrated or at.variable != THRESHOLD else at.value
            opened = searcher.measure(searcher.open(size), [], threshold, [])
            for one in _outcomes(opened, run):
                if one.setting == at.setting:
                    return one
        return None

    def _about_prints(self, run: Run, best: Outcome, fewer: Outcome | None, more: Outcome | None) -> str:
        longer = with_more_prints(run, self.settings)
        if not longer:
            return "Enrollment with more prints was not measured."
        if fewer is None or more is None:
            enough, total = len(self.runs[longer[-1]].names), len(self.runs[run].names)
            return (
                "The recordings are too short to measure more enrollment audio: "
                f"{enough} of {total} speakers have {longer[-1].prints} prints of {run.duration_s:g} s and "
                "a probe."
            )
        speakers = len(self.runs[replace(run, prints=more.prints)].names)
        return (
            f"More enrollment audio, {more.prints} prints of {run.duration_s:g} s instead of {run.prints}: "
            f"at {best.setting} {rate(more.fnir)} of callers are missed instead of {rate(fewer.fnir)}, and "
            f"{rate(more.fpir)} of strangers named instead of {rate(fewer.fpir)} ({speakers} speakers who "
            f"have enough recordings, a gallery of {more.gallery})."
        )


def _setting(variable: str, value: float | None) -> str:
    return variable if value is None else f"{variable}={value:g}"


def _errors(outcome: Outcome) -> str:
    return f"{rate(outcome.fpir)} of strangers named and {rate(outcome.fnir)} of callers missed"


def _at_current(current: Outcome | None, name: str, result: RunResult) -> str:
    if current is None:
        return f"Your setting ({name}) is not measured by these scores."
    text = (
        f"At your setting ({name}) {rate(current.fpir)} of strangers get a name and {rate(current.fnir)} of "
        f"callers are missed in a gallery of {current.gallery}."
    )
    material = result.material
    if material.same_session:
        text += (
            f" Same session for {material.same_session} of {material.speakers} speakers: expect more errors."
        )
    if current.variable == THRESHOLD:
        text += f" In a larger gallery this threshold names more strangers; {TARGET} follows the size."
    return text


def _targets_missed(measured: Sequence[Outcome]) -> list[str]:
    """Advice to calibrate where more strangers get a name than `VOICE_TARGET_FPIR` allows."""
    for one in measured:
        low = one.fpir.value if one.fpir.low is None else one.fpir.low
        if one.variable == TARGET and one.fpir.value > 2 * one.value and low > one.value:
            return [f"{TARGET} does not hold on these recordings: fit it with `voiceprint calibrate`."]
    return []


def _outcomes(opened: OpenSet, run: Run) -> list[Outcome]:
    found = []
    if opened.at_threshold is not None:
        at = opened.at_threshold
        found.append(Outcome(THRESHOLD, at.threshold, opened.gallery, run.prints, at.fpir, at.fnir))
    found += [
        Outcome(TARGET, one.target, opened.gallery, run.prints, one.fpir, one.fnir)
        for one in opened.at_target
    ]
    return found


def _in_hindsight(result: RunResult, run: Run) -> list[Outcome]:
    """The cosine thresholds with the FPIRs of `at_fpir` on the measured strangers."""
    if not result.open_set:
        return []
    opened = result.open_set[-1]
    found = []
    for at in opened.at_fpir:
        if 0.0 <= at.threshold <= 1.0:
            up = math.ceil(1000 * at.threshold) / 1000  # so that no more strangers pass
            found.append(Outcome(THRESHOLD, up, opened.gallery, run.prints, Estimate(at.fpir), at.fnir))
    return found
