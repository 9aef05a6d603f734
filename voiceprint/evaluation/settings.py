"""The settings of an evaluation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

from voiceprint.audio.simulate import AS_IS, Condition
from voiceprint.errors import InvalidArgumentError

Enrollment = tuple[Condition, ...]
"""The conditions of an enrollment: a print has an embedding under each."""


def parse_enrollment(text: str) -> Enrollment:
    """The conditions of a name such as "as-is" or "as-is+telephone:snr=20". Raises `InvalidArgumentError`."""
    conditions = tuple(Condition.parse(part) for part in text.split("+"))
    if len(set(conditions)) < len(conditions):
        raise InvalidArgumentError(f"{text!r} names a condition twice")
    return conditions


@dataclass(frozen=True)
class Run:
    """A combination of enrollment and probe conditions."""

    enroll: Enrollment
    probe: Condition
    duration_s: float
    prints: int

    @property
    def enroll_name(self) -> str:
        """The conditions of enrollment, in the form of `parse_enrollment`."""
        return "+".join(map(str, self.enroll))

    def __str__(self) -> str:
        prints = "1 print" if self.prints == 1 else f"{self.prints} prints"
        return f"{self.enroll_name} \N{RIGHTWARDS ARROW} {self.probe}, {self.duration_s:g} s, {prints}"


@dataclass(frozen=True)
class Settings:
    """The settings of `evaluate`: every combination of the first four is a run of its own.

    enroll: conditions of enrollment.
    probe: conditions of the probes.
    durations_s: seconds of each piece, above 0, up to 60; `net`: without pauses.
    prints: enrollment pieces of a caller, 1 to 10.
    gallery: gallery sizes, 2 or more; None for 10, 20, 50, 100, ... and all callers; of 10 callers or
        fewer, from 2.
    unknown_share: share of the speakers held out in open-set searches; 0 (none) to under 1.
    fpirs: false-positive identification rates at which FNIR is measured, between 0 and 1.
    targets: false-positive identification rates for the thresholds of a `TargetScorer`.
    target_fpir: the configured target FPIR, for the recommendation; None where a threshold decides.
    more_prints: prints of a caller that the recommendation compares with the first run; None for no
        comparison.
    splits: draws of callers and unknown speakers, 1 or more.
    most_probes: of a speaker, 1 or more.
    resamples: bootstrap draws for the 95 % intervals; 0 for no intervals.
    noise_reduction: whether log-likelihood ratios use noise reduction, as in the product.
    augmented_prints: whether they use augmented prints, as enrollment under one condition stores them.
    channel: index of the channel, from 0; None mixes all.
    prompts: as in `VoiceFingerprintConfig`; removed from all recordings.
    separate: whether to use only the voice with the most net speech of a recording.
    seed: equal seeds and recordings give equal reports.

    Raises `InvalidArgumentError` for a value that is not allowed.
    """

    enroll: tuple[Enrollment, ...] = ((AS_IS,),)
    probe: tuple[Condition, ...] = (AS_IS,)
    durations_s: tuple[float, ...] = (5.0,)
    prints: tuple[int, ...] = (1,)
    gallery: tuple[int, ...] | None = None
    unknown_share: float = 0.5
    fpirs: tuple[float, ...] = (0.01, 0.05)
    targets: tuple[float, ...] = (0.01, 0.05, 0.1)
    target_fpir: float | None = None
    more_prints: int | None = 3
    splits: int = 20
    most_probes: int = 10
    net: bool = True
    resamples: int = 1000
    noise_reduction: bool = True
    augmented_prints: bool = True
    channel: int | None = None
    prompts: str | None = None
    separate: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("enroll", "probe", "durations_s", "prints", "gallery", "fpirs", "targets"):
            values = getattr(self, name)
            if values is not None and (not values or len(set(values)) < len(values)):
                raise InvalidArgumentError(f"{name} must be one value or more, none of them twice")
        checks = (
            ("a duration", all(0.0 < s <= 60.0 for s in self.durations_s), "above 0, up to 60 s"),
            ("prints", all(1 <= n <= 10 for n in self.prints), "from 1 to 10"),
            ("more_prints", self.more_prints is None or 1 <= self.more_prints <= 10, "from 1 to 10"),
            ("target_fpir", self.target_fpir is None or 0.0 < self.target_fpir < 1.0, "between 0 and 1"),
            ("a gallery", all(n >= 2 for n in self.gallery or ()), "of 2 callers or more"),
            ("unknown_share", 0.0 <= self.unknown_share < 1.0, "from 0 to under 1"),
            ("an FPIR", all(0.0 < f < 1.0 for f in (*self.fpirs, *self.targets)), "between 0 and 1"),
            ("splits", self.splits >= 1, "1 or more"),
            ("most_probes", self.most_probes >= 1, "1 or more"),
            ("resamples", self.resamples >= 0, "0 or more"),
            ("seed", self.seed >= 0, "0 or more"),
        )
        for name, is_allowed, allowed in checks:
            if not is_allowed:
                raise InvalidArgumentError(f"{name} must be {allowed}")

    def runs(self) -> list[Run]:
        """All combinations, in a fixed order."""
        return [Run(*run) for run in product(self.enroll, self.probe, self.durations_s, self.prints)]

    def sizes(self, most: int) -> list[int]:
        """The gallery sizes for `most` callers; configured ones may be larger."""
        if self.gallery is not None:
            return sorted(self.gallery)
        if most < 2:
            return []
        powers = range(0 if most <= 10 else 1, math.ceil(math.log10(most)) + 1)
        steps = (base * 10**power for power in powers for base in (1, 2, 5))
        return [*(size for size in steps if 1 < size < most), most]
