"""What is to be measured."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

from voiceprint.audio.simulate import AS_IS, Condition
from voiceprint.errors import InvalidArgumentError

Enrollment = tuple[Condition, ...]
"""The conditions that go into a print, one embedding each."""


def parse_enrollment(text: str) -> Enrollment:
    """The conditions of a name such as "as-is" or "as-is+telephone:snr=20". Raises `InvalidArgumentError`."""
    conditions = tuple(Condition.parse(part) for part in text.split("+"))
    if len(set(conditions)) < len(conditions):
        raise InvalidArgumentError(f"{text!r} names a condition twice")
    return conditions


@dataclass(frozen=True)
class Run:
    """One setting of what is compared: how callers are enrolled, and what their probes are like."""

    enroll: Enrollment
    probe: Condition
    duration_s: float
    prints: int

    @property
    def enroll_name(self) -> str:
        """The conditions of enrollment, as `parse_enrollment` reads them."""
        return "+".join(map(str, self.enroll))

    def __str__(self) -> str:
        prints = "1 print" if self.prints == 1 else f"{self.prints} prints"
        return f"{self.enroll_name} \N{RIGHTWARDS ARROW} {self.probe}, {self.duration_s:g} s, {prints}"


@dataclass(frozen=True)
class Settings:
    """What `evaluate` measures: every combination of the first four, each a run of its own.

    enroll: conditions of enrollment; of each, those that go into every print.
    probe: conditions of the probes.
    durations_s: of each piece, above 0, up to 60; `net` of speech, else by the clock.
    prints: enrollment pieces of a caller, 1 to 10.
    gallery: sizes of the galleries that are searched, 2 or more; None for 10, 20, 50, 100, ... and the
        largest there is; of 10 callers or fewer, from 2.
    unknown_share: of the speakers who are held out, not enrolled, in open-set searches; 0 for none, to
        under 1.
    fpirs: false-positive identification rates at which FNIR is given, between 0 and 1.
    targets: false-positive identification rates that a scorer which can is to set its thresholds for.
    target_fpir: the configured target FPIR, which the recommendation is for; None where a threshold decides.
    more_prints: prints of a caller in the enrollments that the recommendation compares with the first run;
        None for no comparison.
    splits: how often callers and unknown speakers are drawn, 1 or more.
    most_probes: of a speaker, 1 or more.
    resamples: draws of the bootstrap for the intervals, of confidence 95 %; 0 for no intervals.
    noise_reduction: whether log-likelihood ratios are of noisy audio without its noise, as in the product.
    second_print: whether they are also of a print for simulated lines, as the product keeps it beside an
        enrollment under one condition.
    channel: of recordings with several, from 0; None mixes them.
    prompts: of `VoiceFingerprintConfig`, which are left out; None for none.
    separate: whether of a recording of several voices only the one that speaks most counts.
    seed: the same one, with the same recordings, gives the same report.

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
    second_print: bool = True
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
        """The sizes of galleries to be measured where there are `most` callers; given ones may be larger."""
        if self.gallery is not None:
            return sorted(self.gallery)
        if most < 2:
            return []
        powers = range(0 if most <= 10 else 1, math.ceil(math.log10(most)) + 1)
        steps = (base * 10**power for power in powers for base in (1, 2, 5))
        return [*(size for size in steps if 1 < size < most), most]
