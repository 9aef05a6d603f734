"""`voiceprint calibrate`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from voiceprint.cli.audio import ChannelOption
from voiceprint.cli.common import (
    JsonOption,
    StoreOption,
    complain,
    counted,
    opened,
    paragraph,
    print_json,
    ready,
    say,
    stages,
    table,
)
from voiceprint.cli.measuring import CacheOption, NoCacheOption, chosen_cache
from voiceprint.config import VoiceFingerprintConfig
from voiceprint.errors import InvalidArgumentError

if TYPE_CHECKING:
    from voiceprint.evaluation import Calibrated, CalibratedByCalls, EmbeddingCache, Skip
    from voiceprint.scoring import Calibration

_CALLS_ONLY = "--store goes with --calls: labeled recordings are their own gallery"


def calibrate(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR...",
            help="Labeled: with a folder per speaker and one per session, DIR/SPEAKER/SESSION/*.wav; a file "
            "directly in DIR/SPEAKER counts as a session of its own. With --calls: recordings at any depth, "
            "each a call.",
        ),
    ],
    labeled: Annotated[
        bool,
        typer.Option(
            "--labeled/--calls",
            "--labeled",
            help="Whether the folders say who speaks. --calls: nobody knows, and the callers of the store "
            "are the gallery.",
        ),
    ] = True,
    output: Annotated[Path, typer.Option(metavar="FILE", help="Where the calibration is written.")] = Path(
        "calibration.json"
    ),
    store: StoreOption = None,
    duration: Annotated[
        float, typer.Option(metavar="S", help="Seconds of speech in each piece: about what a call gives.")
    ] = 5.0,
    most_pieces: Annotated[
        int, typer.Option(min=2, help="Pieces of a speaker at most, of labeled recordings.")
    ] = 10,
    channel: ChannelOption = None,
    cache: CacheOption = None,
    no_cache: NoCacheOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure by your own calls how often strangers pass, show what that changes, and write it to a file.

    Labeled recordings: half of the speakers are the gallery, the others are strangers. The file corrects the
    false-positive rate and the meaning of the scores. Shown are FPIR and FNIR of speakers who were not fitted
    to: each half of them is calibrated by the other.

    --calls: of recordings without labels, 30 or more, the best score of each with the callers of the store,
    10 or more. The share of known callers is estimated. The file corrects the false-positive rate alone.
    Shown are the calls that are accepted, each half of them calibrated by the other.

    The file holds no embedding and no name. The same recordings and store give the same file.

    Recordings with a different voice on each channel are refused until --channel says which to use; stereo
    recordings of one voice are mixed.

    Exit code 1 when a recording could not be read.
    """
    from voiceprint._files import check_replaceable
    from voiceprint.scoring.calibration import is_calibration

    if not output.parent.is_dir():
        raise InvalidArgumentError(f"cannot write {output}: there is no folder {output.parent}")
    if labeled and store is not None:
        raise InvalidArgumentError(_CALLS_ONLY)
    with _written(output):  # not only after the work
        check_replaceable(output, ours=is_calibration, kind="a calibration")
    embeddings = chosen_cache(cache, no_cache=no_cache)
    show: Callable[[], None]
    if labeled:
        found = _by_speakers(folders, duration, most_pieces, channel, embeddings)
        made, unreadable, shown = found.calibration, found.unreadable, asdict(found)
        show = lambda: _show_speakers(found)  # noqa: E731
    else:
        by_calls = _by_calls(folders, store, duration, channel, embeddings)
        made, unreadable, shown = by_calls.calibration, by_calls.unreadable, asdict(by_calls)
        show = lambda: _show_calls(by_calls)  # noqa: E731
    with _written(output):
        made.save(output)
    if as_json:
        print_json(shown | {"calibration": made.model_dump(), "file": str(output)})
    else:
        show()
        _show_file(made, output, unreadable)
    if unreadable:
        raise typer.Exit(1)


def _by_speakers(
    folders: list[Path],
    duration: float,
    most_pieces: int,
    channel: int | None,
    cache: EmbeddingCache | None,
) -> Calibrated:
    from voiceprint.encoder import default_encoder
    from voiceprint.evaluation import calibrate as fit

    config = VoiceFingerprintConfig()
    with stages() as progress:
        return fit(
            folders,
            encoder=default_encoder(config.encoder, config.encoder_threads),
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

    with opened(store) as recognizer:
        ready(recognizer)
        with stages() as progress:
            return calibrate_by_calls(
                folders, recognizer, duration_s=duration, channel=channel, cache=cache, progress=progress
            )


@contextmanager
def _written(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # of the file that is written
        raise InvalidArgumentError(f"cannot write {output}: {error.strerror or error}") from error


def _show_speakers(found: Calibrated) -> None:
    from voiceprint.evaluation.calibration import ADVISED_SPEAKERS
    from voiceprint.evaluation.tables import left_out, percent

    say(f"{found.speakers} speakers, {counted(found.pieces, 'piece')}.", "")
    rows = [
        (name, f"{one.cllr:.3f}", *(f"{percent(at.fpir)} / {percent(at.fnir)}" for at in one.at_target))
        for name, one in (("before", found.before), ("after", found.after))
    ]
    wanted = [f"FPIR / FNIR, {percent(at.target, 0)} wanted" for at in found.before.at_target]
    columns = ("", "Cllr", *wanted)
    table(*columns, rows=rows, right=columns[1:])
    say("")
    paragraph(
        f"Of speakers who were not fitted to, in galleries of {counted(found.gallery, 'caller')}. FPIR: "
        "strangers who get a name; FNIR: callers who are missed. Cllr: how well the scores say what they "
        "mean, the less the better."
    )
    if found.speakers < ADVISED_SPEAKERS:
        paragraph(f"Few speakers: of {ADVISED_SPEAKERS} or more, figures and file are surer.", "- ")
    if found.one_recording:
        paragraph(
            f"{found.one_recording} of the speakers have one session alone, and parts of one are easier to "
            "tell together than two calls: the file promises more than calls will hold.",
            "- ",
        )
    if found.dropped:
        paragraph(left_out(found.dropped), "- ")
    if found.after.cllr >= found.before.cllr:
        complain("It made the scores no better: stay with the calibration that you have.")


def _show_calls(found: CalibratedByCalls) -> None:
    from voiceprint.evaluation.tables import left_out, percent

    known = percent(found.known_share, 0)
    say(
        f"{found.calls} calls, {counted(found.callers, 'caller')} in the store.",
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
    columns = ("", *(f"{percent(at.target, 0)} wanted" for at in found.before))
    table(*columns, rows=rows, right=columns[1:])
    say("")
    paragraph(
        "Calls that are accepted at a wanted FPIR; in brackets the estimated strangers among them, and their "
        "share of all strangers, which is the FPIR got. Each half of the calls is calibrated by the other."
    )
    paragraph("The estimate takes callers for strangers where their calls score no better than these.", "- ")
    if found.dropped:
        paragraph(left_out(found.dropped, "calls"), "- ")


def _show_file(made: Calibration, output: Path, unreadable: Sequence[Skip]) -> None:
    for skip in unreadable:
        paragraph(f"A recording could not be read: {skip.why}.", "- ")
    paragraph(
        f"Strangers score {made.stranger_shift:+.2f} deviations against what the gallery expects, with "
        f"{made.stranger_spread:.2f} times the spread (+0.00 and 1.00: as expected).",
        "- ",
    )
    say("", f"Written to {output}. To use it: VOICE_CALIBRATION_PATH={output}")
