"""`voiceprint calibrate`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from voiceprint.cli.audio import CacheOption, ChannelOption, NoCacheOption, embedding_cache
from voiceprint.cli.audit import open_log
from voiceprint.cli.common import (
    JsonOption,
    StoreOption,
    build_index,
    open_recognizer,
    paragraph,
    plural,
    print_error,
    print_json,
    print_lines,
    stage_progress,
    table,
)
from voiceprint.cli.gallery_options import chosen_settings
from voiceprint.errors import InvalidArgumentError

if TYPE_CHECKING:
    from voiceprint.evaluation import Calibrated, CalibratedByCalls, EmbeddingCache, Skip
    from voiceprint.evaluation.audit_calibration import CalibratedByAudit
    from voiceprint.scoring import Calibration

_CALLS_ONLY = "--store goes with --calls: labeled recordings are their own gallery"


def calibrate(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="DIR...",
            help="Labeled: with a folder per speaker and one per session, DIR/SPEAKER/SESSION/*.wav; a file "
            "directly in DIR/SPEAKER counts as a session of its own. With --calls: recordings at any depth, "
            "each a call.",
        ),
    ] = None,
    labeled: Annotated[
        bool,
        typer.Option(
            "--labeled/--calls",
            "--labeled",
            help="Whether the folders name the speakers. --calls: the recordings are unlabeled, and the "
            "callers of the store are the gallery.",
        ),
    ] = True,
    from_audit: Annotated[
        bool,
        typer.Option(
            "--from-audit", help="Use the answers in the audit log that feedback confirms or contradicts."
        ),
    ] = False,
    output: Annotated[Path, typer.Option(metavar="FILE", help="File of the calibration.")] = Path(
        "calibration.json"
    ),
    store: StoreOption = None,
    duration: Annotated[
        float, typer.Option(metavar="S", help="Seconds of speech in each piece, as in a call.")
    ] = 5.0,
    most_pieces: Annotated[
        int, typer.Option(min=2, help="Most pieces of a speaker, of labeled recordings.")
    ] = 10,
    channel: ChannelOption = None,
    cache: CacheOption = None,
    no_cache: NoCacheOption = False,
    as_json: JsonOption = False,
) -> None:
    """Calibrate scores and false-positive rates to your own calls, and write the calibration to a file.

    Labeled recordings: half of the speakers are the gallery, the others are strangers. The file corrects the
    false-positive rate and the log-likelihood ratios. The output is FPIR and FNIR of speakers outside the
    fit: each half is calibrated by the other.

    --calls: 30 unlabeled recordings or more are scored against the callers of the store, 10 or more. The
    share of known callers is estimated. The file corrects the false-positive rate alone. The output is the
    accepted calls; each half is calibrated by the other.

    --from-audit: 30 confirmed strangers or more. The file corrects the false-positive rate alone. The output
    is FPIR and FNIR of the confirmed answers; each half is calibrated by the other.

    The file holds no embedding and no name. Equal recordings and stores give equal files.

    Recordings with a different voice on each channel are refused unless --channel chooses one; stereo
    recordings of one voice are mixed.

    Exit code 1 when a recording could not be read.
    """
    from voiceprint._files import check_replaceable
    from voiceprint.evaluation.audit_calibration import CalibratedByAudit
    from voiceprint.scoring.calibration import is_calibration

    if not output.parent.is_dir():
        raise InvalidArgumentError(f"cannot write {output}: there is no folder {output.parent}")
    if from_audit and (folders or not labeled):
        raise InvalidArgumentError("--from-audit takes no recordings: leave out DIR and --calls.")
    if not from_audit and not folders:
        raise InvalidArgumentError("Give DIR with recordings, or --from-audit.")
    if labeled and store is not None and not from_audit:
        raise InvalidArgumentError(_CALLS_ONLY)
    with _write_errors(output):  # before the work
        check_replaceable(output, ours=is_calibration, kind="a calibration")
    embeddings = embedding_cache(cache, no_cache=no_cache)
    result: Calibrated | CalibratedByCalls | CalibratedByAudit
    show: Callable[[], None]
    if from_audit:
        result = by_audit = _by_audit(store)
        show = partial(_print_answers, by_audit)
    elif labeled:
        result = by_speakers = _by_speakers(folders or [], duration, most_pieces, channel, embeddings)
        show = partial(_print_speakers, by_speakers)
    else:
        result = by_calls = _by_calls(folders or [], store, duration, channel, embeddings)
        show = partial(_print_calls, by_calls)
    unreadable = () if isinstance(result, CalibratedByAudit) else result.unreadable
    with _write_errors(output):
        result.calibration.save(output)
    if as_json:
        fitted = result.calibration.model_dump()
        print_json(asdict(result) | {"calibration": fitted, "file": str(output)})
    else:
        show()
        _print_file(result.calibration, output, unreadable)
    if unreadable:
        raise typer.Exit(1)


def _by_speakers(
    folders: list[Path],
    duration: float,
    most_pieces: int,
    channel: int | None,
    cache: EmbeddingCache | None,
) -> Calibrated:
    from voiceprint.encoder import configured_encoder
    from voiceprint.evaluation import calibrate as fit

    config = chosen_settings()
    with stage_progress() as progress:
        return fit(
            folders,
            encoder=configured_encoder(config),
            duration_s=duration,
            most_pieces=most_pieces,
            channel=channel,
            prompts=config.prompts,
            cache=cache,
            progress=progress,
        )


def _by_calls(
    folders: list[Path],
    store: str | None,
    duration: float,
    channel: int | None,
    cache: EmbeddingCache | None,
) -> CalibratedByCalls:
    from voiceprint.evaluation import calibrate_by_calls

    with open_recognizer(store) as recognizer:
        build_index(recognizer)
        with stage_progress() as progress:
            return calibrate_by_calls(
                folders, recognizer, duration_s=duration, channel=channel, cache=cache, progress=progress
            )


def _by_audit(store: str | None) -> CalibratedByAudit:
    from voiceprint.encoder import configured_encoder
    from voiceprint.evaluation.audit_calibration import calibrate_by_audit

    with open_log(None, store) as log:
        return calibrate_by_audit(log, configured_encoder(chosen_settings()))


@contextmanager
def _write_errors(output: Path) -> Iterator[None]:
    """Raise an OSError as `InvalidArgumentError`."""
    try:
        yield
    except OSError as error:
        raise InvalidArgumentError(f"cannot write {output}: {error.strerror or error}") from error


def _print_speakers(found: Calibrated) -> None:
    from voiceprint.evaluation.calibration import ADVISED_SPEAKERS
    from voiceprint.evaluation.tables import left_out, percent

    print_lines(f"{found.speakers} speakers, {plural(found.pieces, 'piece')}.", "")
    rows = [
        (name, f"{one.cllr:.3f}", *(f"{percent(at.fpir)} / {percent(at.fnir)}" for at in one.at_target))
        for name, one in (("before", found.before), ("after", found.after))
    ]
    targets = [f"FPIR / FNIR, target {percent(at.target, 0)}" for at in found.before.at_target]
    columns = ("", "Cllr", *targets)
    table(*columns, rows=rows, right=columns[1:])
    print_lines("")
    paragraph(
        f"Of speakers outside the fit, in galleries of {plural(found.gallery, 'caller')}. FPIR: strangers "
        "who get a name; FNIR: callers who are missed. Cllr: the cost of the scores as log-likelihood "
        "ratios; less is better."
    )
    if found.speakers < ADVISED_SPEAKERS:
        paragraph(f"Few speakers: with {ADVISED_SPEAKERS} or more, figures and file are more reliable.", "- ")
    if found.one_recording:
        paragraph(
            f"{found.one_recording} of the speakers have a single session, whose pieces are easier to "
            "recognize than another call: the file is too optimistic.",
            "- ",
        )
    if found.dropped:
        paragraph(left_out(found.dropped), "- ")
    if found.after.cllr >= found.before.cllr:
        print_error("The scores did not improve: use the calibration that you have.")


def _print_answers(found: CalibratedByAudit) -> None:
    from voiceprint.evaluation.tables import percent

    print_lines(
        f"{found.answers} answers in the audit log; feedback names {plural(found.strangers, 'stranger')} and "
        f"{plural(found.callers, 'caller')}.",
        "",
    )
    rows = [
        (name, *(f"{percent(at.fpir)} / {percent(at.fnir)}" for at in rates))
        for name, rates in (("before", found.before), ("after", found.after))
    ]
    columns = ("", *(f"FPIR / FNIR, target {percent(at.target, 0)}" for at in found.before))
    table(*columns, rows=rows, right=columns[1:])
    print_lines("")
    paragraph(
        "Of the answers with feedback, each half calibrated by the other, and weighted to stand for all "
        "answers of the log. FPIR: strangers who get a name; FNIR: callers who are missed."
    )
    if found.without_answer:
        paragraph(
            f"{found.without_answer} feedbacks are to other events, to another encoder's, or to answers "
            "without a false-positive rate.",
            "- ",
        )


def _print_calls(found: CalibratedByCalls) -> None:
    from voiceprint.evaluation.tables import left_out, percent

    known = percent(found.known_share, 0)
    print_lines(
        f"{found.calls} calls, {plural(found.callers, 'caller')} in the store.",
        f"Estimated: {known} of the calls are of enrolled callers.",
        "",
    )
    rows = [
        (
            name,
            *(
                f"{percent(at.calls)} ({at.stranger_calls:.1f} calls, {percent(at.strangers)})"
                for at in accepted
            ),
        )
        for name, accepted in (("before", found.before), ("after", found.after))
    ]
    columns = ("", *(f"target {percent(at.target, 0)}" for at in found.before))
    table(*columns, rows=rows, right=columns[1:])
    print_lines("")
    paragraph(
        "Calls that are accepted at a target FPIR; in brackets the estimated strangers among them, and their "
        "share of all strangers, which is the FPIR. Each half of the calls is calibrated by the other."
    )
    paragraph("The estimate counts callers as strangers if their calls score no better.", "- ")
    if found.dropped:
        paragraph(left_out(found.dropped, "calls"), "- ")


def _print_file(calibration: Calibration, output: Path, unreadable: Sequence[Skip]) -> None:
    for skip in unreadable:
        paragraph(f"A recording could not be read: {skip.why}.", "- ")
    paragraph(
        f"Strangers score {calibration.stranger_shift:+.2f} deviations above the expectation of the gallery, "
        f"with {calibration.stranger_spread:.2f} times the standard deviation (+0.00 and 1.00: as expected).",
        "- ",
    )
    print_lines("", f"Written to {output}. To use it: VOICE_CALIBRATION_PATH={output}")
