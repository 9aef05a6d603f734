"""`voiceprint evaluate`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer

from voiceprint.cli.audio import CacheOption, ChannelOption, NoCacheOption, embedding_cache
from voiceprint.cli.common import (
    JsonOption,
    paragraph,
    print_error,
    print_json,
    print_lines,
    stage_progress,
    table,
)
from voiceprint.cli.gallery_options import chosen_settings
from voiceprint.config import VoiceFingerprintConfig
from voiceprint.errors import InvalidArgumentError

if TYPE_CHECKING:
    from voiceprint.encoder import Encoder
    from voiceprint.evaluation import CalibratedScorer, Report, Scorer

V = TypeVar("V")

CONDITIONS = "as-is, telephone, telephone:snr=20, telephone:band=full,snr=20 or noise:snr=10"


def evaluate(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR...",
            help="With a folder per speaker and one per session: "
            "DIR/SPEAKER/SESSION/*.wav. A file directly in DIR/SPEAKER counts as a session of its own.",
        ),
    ],
    enroll: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help=f"Condition of enrollment: {CONDITIONS}; joined by + for several in a print. "
            "May be repeated. Default: as-is.",
        ),
    ] = None,
    probe: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Condition of the probes. May be repeated. Default: as-is."),
    ] = None,
    duration: Annotated[
        str, typer.Option(metavar="S,S,...", help="Seconds of speech in each piece, such as 2,3,5,10.")
    ] = "5",
    prints: Annotated[str, typer.Option(metavar="N,N,...", help="Voiceprints of a caller.")] = "1",
    gallery: Annotated[
        str | None,
        typer.Option(
            metavar="N,N,...",
            help="Callers in the galleries. Default: 10, 20, 50, ... and all.",
        ),
    ] = None,
    unknown_share: Annotated[
        float, typer.Option(min=0, max=0.99, help="Share of the speakers who are not enrolled.")
    ] = 0.5,
    fpir: Annotated[
        str, typer.Option(metavar="P,P,...", help="FPIR, in percent, at which FNIR is measured.")
    ] = "1,5",
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Cosine from which a match is accepted. Default: that of the settings."
        ),
    ] = None,
    scorer: Annotated[
        Literal["cosine", "calibrated"] | None,
        typer.Option(
            help="The cosine alone, or with the calibrated llr. Default: both, if the embeddings have a "
            "calibration."
        ),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The calibration, of `voiceprint calibrate`. Default: that of the settings."
        ),
    ] = None,
    splits: Annotated[int, typer.Option(min=1, help="Draws of callers and unknown speakers.")] = 20,
    most_probes: Annotated[int, typer.Option(min=1, help="Most probes of a speaker.")] = 10,
    by_clock: Annotated[
        bool, typer.Option("--by-clock", help="Count the pauses of a piece in its duration.")
    ] = False,
    noise_reduction: Annotated[
        bool,
        typer.Option(
            "--noise-reduction/--no-noise-reduction",
            help="Compute llr after noise reduction, as matching does.",
        ),
    ] = True,
    augmented_prints: Annotated[
        bool,
        typer.Option(
            "--simulated-lines/--no-simulated-lines",
            help="Compute llr with augmented prints of simulated lines too, as enrollment stores them.",
        ),
    ] = True,
    channel: ChannelOption = None,
    separate: Annotated[
        bool,
        typer.Option("--separate", help="Use only the voice that speaks most of a recording with several."),
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of pieces, callers and noise.")] = 0,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write report.html, report.json and the plots to this folder."),
    ] = None,
    cache: CacheOption = None,
    no_cache: NoCacheOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure how well callers are recognized, on recordings of known speakers.

    A speaker with several sessions is never enrolled and probed from the same one. Speakers with a single
    session are, and are counted, as that is easier than another call.

    Every combination of --enroll, --probe, --duration and --prints is a run of its own: verification, and
    closed-set and open-set identification. Equal recordings and options give equal figures. A recommendation
    follows: the error rates of the configured setting, a better setting, and the effect of more prints.

    Recordings with a different voice on each channel are refused unless --channel chooses one; stereo
    recordings of one voice are mixed.

    Exit code 1 when a recording could not be read, or a requested run or gallery not measured.
    """
    from voiceprint.encoder import configured_encoder
    from voiceprint.evaluation import (
        Condition,
        CosineScorer,
        Settings,
        parse_enrollment,
    )
    from voiceprint.evaluation import evaluate as measure
    from voiceprint.evaluation.page import prepare_folder
    from voiceprint.identification.acceptance import configured_target, configured_threshold

    embeddings = embedding_cache(cache, no_cache=no_cache)
    config = chosen_settings()
    encoder = configured_encoder(config)
    settings = Settings(
        enroll=tuple(parse_enrollment(name) for name in enroll or ["as-is"]),
        probe=tuple(Condition.parse(name) for name in probe or ["as-is"]),
        durations_s=_numbers("--duration", duration, float),
        prints=_numbers("--prints", prints, int),
        gallery=None if gallery is None else _numbers("--gallery", gallery, int),
        unknown_share=unknown_share,
        fpirs=tuple(percent / 100 for percent in _numbers("--fpir", fpir, float)),
        target_fpir=configured_target(config, encoder.name),
        more_prints=min(config.max_voiceprints_per_caller, 10),
        splits=splits,
        most_probes=most_probes,
        net=not by_clock,
        noise_reduction=noise_reduction,
        augmented_prints=augmented_prints and config.enroll_simulated_lines,
        channel=channel,
        separate=separate,
        prompts=config.prompts,
        seed=seed,
    )
    if output is not None:
        prepare_folder(output)  # before the work
    if threshold is None:
        threshold = configured_threshold(config, encoder.name)
    scorers: list[Scorer] = [CosineScorer(threshold)]
    if scorer != "cosine":
        scorers.append(_llr_scorer(encoder, config, calibration))
    if config.calibrated_similarity and config.target_fpir is None:
        print_error(
            "VOICE_CALIBRATED_SIMILARITY compares the threshold with a probability, which is not measured: "
            "the figures at the threshold are of the cosine."
        )
    with stage_progress() as progress:
        report = measure(
            folders,
            settings,
            encoder=encoder,
            scorer=scorers,
            cache=embeddings,
            progress=progress,
        )
    if as_json:
        print_json(report.as_dict())
    else:
        _print_report(report)
    if output is not None:
        _write(report, output, quiet=as_json)
    if report.unreadable or any(skip.asked for run in report.runs for skip in run.skipped):
        raise typer.Exit(1)


def _llr_scorer(encoder: Encoder, config: VoiceFingerprintConfig, path: Path | None) -> CalibratedScorer:
    """The scorer of log-likelihood ratios; path: of a calibration, None for that of the settings."""
    from voiceprint.evaluation import CalibratedScorer
    from voiceprint.scoring import calibration_for

    calibration = calibration_for(encoder.name, str(path) if path else config.calibration_path)
    return CalibratedScorer(encoder.name, encoder.dimension, calibration)


def _numbers(option: str, text: str, kind: Callable[[str], V]) -> tuple[V, ...]:
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        example = "2,3,5" if kind is float else "1,2,3"
        raise InvalidArgumentError(
            f"{option} needs numbers separated by commas, such as {example}, not {text!r}"
        ) from None


def _print_report(report: Report) -> None:
    from voiceprint.evaluation.tables import recommendations, remarks, summary, tables

    print_lines(summary(report))
    for sentence in report.sessions.summary:
        paragraph(sentence)
    for number, shown in enumerate(tables(report)):
        print_lines("", shown.title)
        paragraph(shown.explanation)
        table(*shown.columns, rows=shown.rows, right=shown.columns if number else ())
    print_lines("", "In brackets: 95 % confidence, over speakers.")
    notes = remarks(report)
    if notes:
        print_lines("", "Left out, and to know")
    for remark in notes:
        paragraph(remark, "- ")
    for heading, sentences in recommendations(report):
        print_lines("", heading)
        for sentence in sentences:
            paragraph(sentence, "- ")


def _write(report: Report, folder: Path, *, quiet: bool) -> None:
    from voiceprint.evaluation import page, plots

    files = page.write(report, folder)
    if not quiet:
        print_lines("", f"Written to {folder}: {', '.join(file.name for file in files)}")
    if not plots.available():
        print_error("No plots: matplotlib is not installed (pip install opusagent-voiceprint[plots]).")
