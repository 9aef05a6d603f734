"""`voiceprint calibrate`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from voiceprint.cli.audio import ChannelOption
from voiceprint.cli.common import JsonOption, complain, counted, paragraph, print_json, say, stages, table
from voiceprint.cli.measuring import CacheOption, NoCacheOption, chosen_cache
from voiceprint.config import VoiceFingerprintConfig
from voiceprint.errors import InvalidArgumentError

if TYPE_CHECKING:
    from voiceprint.evaluation.calibration import Calibrated


def calibrate(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR...",
            help="With a folder per speaker and one per session: DIR/SPEAKER/SESSION/*.wav. "
            "A file directly in DIR/SPEAKER counts as a session of its own.",
        ),
    ],
    output: Annotated[Path, typer.Option(metavar="FILE", help="Where the calibration is written.")] = Path(
        "calibration.npz"
    ),
    duration: Annotated[
        float, typer.Option(metavar="S", help="Seconds of speech in each piece: about what a call gives.")
    ] = 5.0,
    most_pieces: Annotated[int, typer.Option(min=2, help="Pieces of a speaker at most.")] = 10,
    channel: ChannelOption = None,
    cache: CacheOption = None,
    no_cache: NoCacheOption = False,
    as_json: JsonOption = False,
) -> None:
    """Fit the meaning of the scores to your own calls, show what it is worth, and write it to a file.

    Shown is what the scores do with speakers who were not fitted to: each half of them is calibrated by the
    other. The file is fitted to all. It holds no embedding and no name. The same recordings give the same
    file.

    Recordings with a different voice on each channel are refused until --channel says which to use; stereo
    recordings of one voice are mixed.

    Exit code 1 when a recording could not be read.
    """
    from voiceprint._files import check_replaceable
    from voiceprint.encoder import default_encoder
    from voiceprint.evaluation.calibration import calibrate as fit
    from voiceprint.scoring.model_file import is_model

    if not output.parent.is_dir():
        raise InvalidArgumentError(f"cannot write {output}: there is no folder {output.parent}")
    with _written(output):  # not only after the work
        check_replaceable(output, ours=is_model, kind="a calibration")
    config = VoiceFingerprintConfig()
    with stages() as progress:
        found = fit(
            folders,
            encoder=default_encoder(config.encoder, config.encoder_threads),
            duration_s=duration,
            most_pieces=most_pieces,
            channel=channel,
            cache=chosen_cache(cache, no_cache=no_cache),
            progress=progress,
        )
    with _written(output):
        found.backend.save(output)
    if as_json:
        shown = {name: getattr(found, name) for name in ("speakers", "pieces", "one_recording", "gallery")}
        shown |= {"before": asdict(found.before), "after": asdict(found.after), "file": str(output)}
        shown |= {name: [asdict(one) for one in getattr(found, name)] for name in ("dropped", "unreadable")}
        print_json(shown)
    else:
        _show(found, output)
    if found.unreadable:
        raise typer.Exit(1)


@contextmanager
def _written(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # of the file that is written
        raise InvalidArgumentError(f"cannot write {output}: {error.strerror or error}") from error


def _show(found: Calibrated, output: Path) -> None:
    from voiceprint.evaluation.calibration import ADVISED_SPEAKERS, TARGET
    from voiceprint.evaluation.tables import left_out, percent

    say(f"{found.speakers} speakers, {counted(found.pieces, 'piece')}.", "")
    rows = [
        (
            name,
            percent(one.eer),
            f"{one.cllr:.3f}",
            f"{one.min_cllr:.3f}",
            percent(one.fnir),
            f"{percent(one.target_fpir)} / {percent(one.target_fnir)}",
        )
        for name, one in (("before", found.before), ("after", found.after))
    ]
    wanted = percent(TARGET, 0)
    columns = ("", "EER", "Cllr", "min Cllr", f"FNIR at FPIR {wanted}", f"FPIR / FNIR, {wanted} wanted")
    table(*columns, rows=rows, right=columns[1:])
    say("")
    paragraph(
        f"Of speakers who were not fitted to, in galleries of {counted(found.gallery, 'caller')}. A "
        "calibration changes what a score means (Cllr, the less the better), and with it the thresholds for "
        "a wanted FPIR; who is more alike (EER, min Cllr) stays."
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
    for skip in found.unreadable:
        paragraph(f"A recording could not be read: {skip.why}.", "- ")
    if found.after.cllr >= found.before.cllr:
        complain("It made the scores no better: stay with the calibration that you have.")
    say("", f"Written to {output}. To use it: VOICE_CALIBRATION_PATH={output}")
