"""The results of an evaluation. Rates are shares, 0..1; scores are in units of the scorer."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

FORMAT = 1
"""The version of the JSON."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval over speakers; None where too few draws define it."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Skip:
    """A file, speaker or figure that was left out, and why; asked: the settings name it."""

    what: str
    why: str
    asked: bool = False


@dataclass(frozen=True)
class Sessions:
    """Whether probes come from other sessions than the enrollments.

    speakers: measured in a run. same: speakers who are probed, in a run, with the session of enrollment.
    single_files: speakers whose files are in no session folder, so that each file counts as a session.
    summary: the counts in sentences.
    """

    speakers: int
    same: int
    single_files: int
    summary: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "summary", self._sentences())

    def _sentences(self) -> tuple[str, ...]:
        if self.same == self.speakers:
            return (f"Sessions: same session for all {self.speakers} speakers: real accuracy is lower.",)
        sentences = [
            f"Sessions: {self.speakers - self.same} of {self.speakers} speakers are probed with another "
            "session than they were enrolled from."
        ]
        if self.same:
            sentences.append(
                f"Same session for {self.same} of {self.speakers} speakers: real accuracy is lower."
            )
        if self.single_files:
            sentences.append(
                f"Each file counts as a session for {self.single_files} of {self.speakers} speakers. Put the "
                "files of one session into a folder, DIR/SPEAKER/SESSION: otherwise the figures flatter."
            )
        return tuple(sentences)


@dataclass(frozen=True)
class Material:
    """The speakers and pieces of a run.

    speakers: measured ones. dropped: the others, with the reason. probes: of all speakers.
    same_session: speakers whose probes are of the session of enrollment.
    failed_probes: probes left out, as the encoder found no speech in them under the run's condition.
    """

    speakers: int
    dropped: tuple[Skip, ...]
    probes: int
    same_session: int
    failed_probes: int


@dataclass(frozen=True)
class Verification:
    """Every probe against every caller.

    cllr: of the scores, if they are log-likelihood ratios; else after an affine calibration fitted on the
        other half of the speakers. cllr_of: which of the two.
    det: points (FMR, FNMR).
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
    """Searches by enrolled speakers, in galleries of one size drawn `splits` times."""

    gallery: int
    splits: int
    searches: int
    rank_one: Estimate


@dataclass(frozen=True)
class AtFpir:
    """The threshold with an FPIR, and the FNIR at that threshold."""

    fpir: float
    threshold: float
    fnir: Estimate


@dataclass(frozen=True)
class AtThreshold:
    """FPIR and FNIR at a threshold."""

    threshold: float
    fpir: Estimate
    fnir: Estimate


@dataclass(frozen=True)
class AtTarget:
    """FPIR and FNIR at the scorer's own thresholds for a target FPIR."""

    target: float
    fpir: Estimate
    fnir: Estimate


@dataclass(frozen=True)
class OpenSet:
    """Searches by enrolled and by unknown speakers, in galleries of one size drawn `splits` times.

    known_searches, unknown_searches: by enrolled and by unknown speakers, over all splits.
    at_fpir: for each of `Settings.fpirs` that the number of searches can resolve.
    at_threshold: at the scorer's own threshold.
    at_target: for each of `Settings.targets`, if the scorer sets thresholds for a target.
    fpir_by_threshold: FPIR at each of `RunResult.thresholds`.
    curve: points (FPIR, FNIR) as the threshold falls.
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
    """The distribution of scores: shares in `curves.BINS` bins of equal width from `low` to `high`.

    best_impostors: the best score of each search by an unknown speaker, in the largest gallery.
    settings: each setting with its threshold in that gallery, the median where it varies by split.
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
    """The results of one run by one scorer; `skipped` names the figures that could not be measured."""

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

    variable, value: of the environment. prints: of each caller.
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
    """The recommended setting, by the results of one run.

    current: under the configured setting; None where the scores do not measure it.
    others: under alternative settings.
    fewer_prints, more_prints: under the recommended setting with the prints of the run, and with more, of the
        same speakers and probes; None where the recordings are too short.
    text: the recommendation in sentences.
    """

    run: str
    current: Outcome | None
    others: tuple[Outcome, ...]
    fewer_prints: Outcome | None
    more_prints: Outcome | None
    text: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """The result of `evaluate`."""

    sessions: Sessions
    voiceprint: str
    encoder: str
    scorers: tuple[str, ...]
    folders: tuple[str, ...]
    speakers: int
    recordings: int
    unreadable: tuple[Skip, ...]
    with_prompts: int
    """Sessions with audio that occurs in sessions of two other speakers too."""
    settings: dict[str, Any]
    runs: tuple[RunResult, ...]
    recommendations: tuple[Recommendation, ...]

    def as_dict(self) -> dict[str, Any]:
        """The report for JSON; floats are rounded to six places, to be equal on all machines."""
        return {"format": FORMAT, **_plain(self)}


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {one.name: _plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return round(value, 6) + 0.0 if math.isfinite(value) else None  # + 0.0: no -0.0
    return value
