"""What was measured. Rates are shares, 0..1; scores are the scorer's."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

FORMAT = 1
"""The version of the JSON."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval of 95 %, over speakers; None where too few draws define it."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Skip:
    """Something that could not be measured, and why; asked: it was asked for by name."""

    what: str
    why: str
    asked: bool = False


@dataclass(frozen=True)
class Sessions:
    """Whether probes come from other sessions than the enrollments.

    speakers: who are measured in a run. same: speakers who are probed, in a run, with the session that they
        are enrolled from. single_files: speakers whose files are in no session folder, each file counting as
        a session. summary: the same in words.
    """

    speakers: int
    same: int
    single_files: int
    summary: tuple[str, ...]


@dataclass(frozen=True)
class Material:
    """The speakers and pieces of a run.

    speakers: who are measured. dropped: who are not, with the reason. probes: of all speakers.
    same_session: speakers whose probes come from the session that they are enrolled from.
    failed_probes: pieces in which the encoder found no speech, under the run's condition; left out.
    """

    speakers: int
    dropped: tuple[Skip, ...]
    probes: int
    same_session: int
    failed_probes: int


@dataclass(frozen=True)
class Verification:
    """Every probe against every caller.

    cllr: of the scores, where they are log-likelihood ratios; else after an affine calibration that was
        fitted on the other half of the speakers. cllr_of: which of the two.
    det: (FMR, FNMR) along the curve.
    """

    targets: int
    impostors: int
    eer: Estimate
    min_dcf: Estimate
    min_cllr: Estimate
    cllr: Estimate | None
    cllr_of: str
    det: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class ClosedSet:
    """Searches by enrolled speakers alone, in galleries of one size drawn `splits` times."""

    gallery: int
    splits: int
    searches: int
    rank_one: Estimate


@dataclass(frozen=True)
class AtFpir:
    """The threshold that gives an FPIR, and the FNIR there."""

    fpir: float
    threshold: float
    fnir: Estimate


@dataclass(frozen=True)
class AtThreshold:
    """What a threshold gives."""

    threshold: float
    fpir: Estimate
    fnir: Estimate


@dataclass(frozen=True)
class AtTarget:
    """What the scorer's own thresholds for a wanted FPIR give."""

    target: float
    fpir: Estimate
    fnir: Estimate


@dataclass(frozen=True)
class OpenSet:
    """Searches by enrolled and by unknown speakers, in galleries of one size drawn `splits` times.

    known_searches, unknown_searches: by enrolled and by unknown speakers, over all splits.
    at_fpir: for each of `Settings.fpirs` that so many searches can show.
    at_threshold: at the scorer's own threshold.
    at_target: for each of `Settings.targets`, where the scorer sets thresholds for it.
    fpir_by_threshold: FPIR at each of `RunResult.thresholds`.
    curve: (FPIR, FNIR) as the threshold falls.
    """

    gallery: int
    splits: int
    known_searches: int
    unknown_searches: int
    rank_one: Estimate
    at_fpir: tuple[AtFpir, ...]
    at_threshold: AtThreshold | None
    at_target: tuple[AtTarget, ...]
    fpir_by_threshold: tuple[Estimate, ...]
    curve: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Histogram:
    """How scores are spread: shares of each kind in `bins` of equal width from `low` to `high`.

    best_impostors: the best score of each search by an unknown speaker, in the largest gallery.
    settings: each setting with the score from which it accepts there, the median where that varies by probe.
    """

    low: float
    high: float
    targets: tuple[float, ...]
    impostors: tuple[float, ...]
    best_impostors: tuple[float, ...]
    gallery: int | None
    settings: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class RunResult:
    """The results of one run by one scorer; what could not be measured is named in `skipped`."""

    name: str
    scorer: str
    enroll: str
    probe: str
    duration_s: float
    prints: int
    material: Material
    verification: Verification | None
    closed_set: tuple[ClosedSet, ...]
    open_set: tuple[OpenSet, ...]
    thresholds: tuple[float, ...]
    histogram: Histogram | None
    skipped: tuple[Skip, ...]


@dataclass(frozen=True)
class Outcome:
    """Errors of open-set identification under a setting.

    variable, value: the environment variable that is set. prints: of each caller.
    fpir: strangers' calls that get a name. fnir: callers' calls that are missed.
    """

    variable: str
    value: float
    gallery: int
    prints: int
    fpir: Estimate
    fnir: Estimate

    @property
    def setting(self) -> str:
        """The variable and its value, as in a shell."""
        return f"{self.variable}={self.value:g}"


@dataclass(frozen=True)
class Recommendation:
    """What to set, by the results of one run.

    current: under the configured setting; None where the scores do not measure that.
    others: under settings to choose instead.
    fewer_prints, more_prints: under the recommended setting with the prints of the run, and with more, of the
        same speakers and probes; None where the recordings are too short.
    text: all of it in sentences.
    """

    run: str
    current: Outcome | None
    others: tuple[Outcome, ...]
    fewer_prints: Outcome | None
    more_prints: Outcome | None
    text: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """The result of `evaluate`; `as_dict` gives what is written as JSON."""

    sessions: Sessions
    voiceprint: str
    encoder: str
    scorers: tuple[str, ...]
    folders: tuple[str, ...]
    speakers: int
    recordings: int
    unreadable: tuple[Skip, ...]
    with_prompts: int
    """Sessions that hold audio which those of two other speakers hold too."""
    settings: dict[str, Any]
    runs: tuple[RunResult, ...]
    recommendations: tuple[Recommendation, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain dicts, lists and numbers; fractions rounded to six places, so that the last bits of a
        machine's arithmetic do not show."""
        return {"format": FORMAT, **_plain(self)}


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return round(value, 6) + 0.0 if math.isfinite(value) else None  # + 0.0: no -0.0
    return value
