"""The tables and sentences of a report, for the terminal and the HTML page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from voiceprint.evaluation.report import Estimate, Report, RunResult, Skip

NONE = "-"


class Table(NamedTuple):
    """A table of text, with an explanation of its figures."""

    title: str
    explanation: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def percent(share: float, digits: int = 1) -> str:
    """0.0123 as "1.2 %"."""
    return f"{100 * share:.{digits}f} %"


def rate(estimate: Estimate | None) -> str:
    """A share as a percentage with its interval."""
    if estimate is None:
        return NONE
    if estimate.low is None or estimate.high is None:
        return percent(estimate.value)
    return f"{percent(estimate.value)} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def cost(estimate: Estimate | None) -> str:
    """A cost or bits with its interval."""
    if estimate is None:
        return NONE
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.3f}"
    return f"{estimate.value:.3f} [{estimate.low:.2f}, {estimate.high:.2f}]"


def summary(report: Report) -> str:
    """The speakers, the encoder and the scorers, in a line."""
    return (
        f"{report.speakers} speakers with {report.recordings} recordings; "
        f"encoder {report.encoder}, scores by {' and '.join(report.scorers)}."
    )


def tables(report: Report) -> list[Table]:
    """The tables with rows; the first describes the runs, the others hold figures."""
    numbered = list(enumerate(report.runs, 1))
    all_tables = [
        _runs(numbered, net=bool(report.settings["net"])),
        _verification(numbered),
        _identification(numbered),
        _thresholds(numbered),
        _at_targets(numbered),
    ]
    return [table for table in all_tables if table.rows]


def recommendations(report: Report) -> list[tuple[str, tuple[str, ...]]]:
    """The recommendations, each with its heading and sentences."""
    several = len(report.runs) > len(report.scorers)
    return [
        (f"Recommendation for {one.run}" if several else "Recommendation", one.text)
        for one in report.recommendations
    ]


def remarks(report: Report) -> list[str]:
    """Sentences on everything that was left out, and why; equal ones of several runs are merged."""
    runs_by_remark: dict[str, list[int]] = {}
    for number, run in enumerate(report.runs, 1):
        for remark in _remarks(run):
            runs_by_remark.setdefault(remark, []).append(number)
    everywhere = list(range(1, len(report.runs) + 1))
    lines = [
        remark
        if runs == everywhere
        else f"Run{'s' if runs[1:] else ''} {', '.join(map(str, runs))}: {remark}"
        for remark, runs in runs_by_remark.items()
    ]
    if report.with_prompts:
        lines.append(
            f"{report.with_prompts} sessions share audio with those of other speakers, such as an "
            "announcement: `voiceprint prompts` writes it, and VOICE_PROMPTS leaves it out."
        )
    lines += [f"A recording could not be read: {skip.why}." for skip in report.unreadable]
    return lines


def _remarks(run: RunResult) -> Iterable[str]:
    material = run.material
    if material.dropped:
        yield left_out(material.dropped)
    if material.failed_probes:
        yield f"{material.failed_probes} probes are left out: the encoder found no speech in them."
    for skip in run.skipped:
        yield _sentence(skip)


def left_out(dropped: Sequence[Skip], what: str = "speakers") -> str:
    """A sentence on the speakers (or `what`) that are left out, by reason."""
    reasons = Counter(skip.why for skip in dropped)
    shown = "; ".join(f"{why} ({count})" for why, count in reasons.most_common(3))
    left = len(reasons) - 3
    more = f"; and {left} other reason{'s' if left > 1 else ''}" if left > 0 else ""
    return f"{len(dropped)} {what} are left out, with {shown}{more}."


def _sentence(skip: Skip) -> str:
    return f"Not measured: {skip.what}, as {skip.why}."


_Numbered = list[tuple[int, RunResult]]


def _runs(runs: _Numbered, *, net: bool) -> Table:
    rows = [
        (
            str(number),
            run.enroll,
            run.probe,
            f"{run.duration_s:g} s",
            str(run.prints),
            run.scorer,
            str(run.material.speakers),
            str(run.material.probes),
        )
        for number, run in runs
    ]
    return Table(
        "Runs",
        f"Piece: seconds of {'speech, without pauses' if net else 'audio, with pauses'}.",
        ("Run", "Enrollment", "Probe", "Piece", "Prints", "Scores", "Speakers", "Probes"),
        tuple(rows),
    )


def _verification(runs: _Numbered) -> Table:
    rows = []
    for number, run in runs:
        found = run.verification
        if found is not None:
            least = f"{found.min_cllr.value:.3f}"
            figures = (rate(found.eer), cost(found.min_dcf), cost(found.cllr), least)
            rows.append((str(number), *figures))
    of = {run.verification.cllr_of for _, run in runs if run.verification and run.verification.cllr}
    return Table(
        "Verification",
        "Every probe against every caller, one to one. EER: the error rate at the threshold that accepts the "
        "same share of impostors as it refuses of callers; 0 % is perfect, 50 % is chance. minDCF: the cost "
        "of errors at the best threshold if 1 claim in 100 is true; 0 is perfect, 1 no better than to refuse "
        "all. Cllr: how much the scores mislead as log-likelihood ratios, in bits; 0 is perfect, 1 says "
        "nothing, and min Cllr is the part that no calibration can mend."
        + (f" Cllr is of {' or '.join(sorted(of))}." if of else ""),
        ("Run", "EER", "minDCF", "Cllr", "min Cllr"),
        tuple(rows),
    )


def _identification(runs: _Numbered) -> Table:
    targets = _targets(runs)
    rows = []
    for number, run in runs:
        closed = {one.gallery: one for one in run.closed_set}
        opened = {one.gallery: one for one in run.open_set}
        for size in sorted({*closed, *opened}):
            at = {one.fpir: one.fnir for one in opened[size].at_fpir} if size in opened else {}
            rank = rate(closed[size].rank_one) if size in closed else NONE
            rows.append((str(number), str(size), rank, *[rate(at.get(target)) for target in targets]))
    return Table(
        "Identification",
        "Rank-1: enrolled callers who are named right if nobody is unknown. FNIR: enrolled callers who are "
        "missed, at the threshold with that share of unknown callers who get a name (FPIR).",
        ("Run", "Gallery", "Rank-1", *[f"FNIR at FPIR {100 * target:g} %" for target in targets]),
        tuple(rows),
    )


def _thresholds(runs: _Numbered) -> Table:
    targets = _targets(runs)
    thresholds = {one.at_threshold.threshold for _, run in runs for one in run.open_set if one.at_threshold}
    shown = f" at {thresholds.pop():g}" if len(thresholds) == 1 else ""
    rows = []
    for number, run in runs:
        for one in run.open_set:
            at = {found.fpir: f"{found.threshold:.3f}" for found in one.at_fpir}
            own = (NONE, NONE)
            if one.at_threshold is not None:
                own = (rate(one.at_threshold.fpir), rate(one.at_threshold.fnir))
            rows.append((str(number), str(one.gallery), *own, *[at.get(target, NONE) for target in targets]))
    return Table(
        "Thresholds",
        "Error rates at the configured threshold, and the thresholds with these FPIRs.",
        (
            "Run",
            "Gallery",
            f"FPIR{shown}",
            f"FNIR{shown}",
            *[f"FPIR {100 * target:g} % at" for target in targets],
        ),
        tuple(rows),
    )


def _at_targets(runs: _Numbered) -> Table:
    rows = [
        (str(number), str(one.gallery), f"{100 * at.target:g} %", rate(at.fpir), rate(at.fnir))
        for number, run in runs
        for one in run.open_set
        for at in one.at_target
    ]
    return Table(
        "Thresholds that follow the gallery",
        "For a target FPIR (VOICE_TARGET_FPIR) each gallery has a threshold of the llr: "
        "the measured FPIR and FNIR at these thresholds.",
        ("Run", "Gallery", "Target FPIR", "FPIR", "FNIR"),
        tuple(rows),
    )


def _targets(runs: _Numbered) -> list[float]:
    return sorted({found.fpir for _, run in runs for one in run.open_set for found in one.at_fpir})
