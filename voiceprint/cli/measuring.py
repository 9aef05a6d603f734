"""What the commands share that measure recordings of known speakers: options, cache, calibration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from voiceprint.cli.common import complain
from voiceprint.config import VoiceFingerprintConfig
from voiceprint.errors import InvalidArgumentError

if TYPE_CHECKING:
    from voiceprint.encoder import Encoder
    from voiceprint.evaluation import CalibratedScorer, EmbeddingCache

CacheOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Where embeddings, which are biometric data, are kept, readable by you alone. "
        "Default: your cache folder.",
    ),
]
NoCacheOption = Annotated[bool, typer.Option("--no-cache", help="Keep no embeddings, and use none.")]


def chosen_cache(folder: Path | None, *, no_cache: bool) -> EmbeddingCache | None:
    """The cache that the two options ask for."""
    from voiceprint.evaluation.cache import EmbeddingCache, default_folder

    if no_cache and folder is not None:
        raise InvalidArgumentError("--cache and --no-cache are opposites: give one of them")
    if no_cache:
        return None
    try:
        return EmbeddingCache(folder or default_folder())
    except OSError as error:
        complain(f"No embeddings are kept: {error.strerror or error}.")
        return None


def llr_scorer(
    encoder: Encoder, config: VoiceFingerprintConfig, path: Path | None
) -> CalibratedScorer | None:
    """The scorer of log-likelihood ratios, with the calibration of a file, of the settings or of the package.

    None for a space without a prior, in which small galleries have no log-likelihood ratios.
    """
    from voiceprint.evaluation import CalibratedScorer
    from voiceprint.scoring import calibration_for, projection_for

    if projection_for(encoder.name, encoder.dimension).prior is None:
        return None
    calibration = calibration_for(encoder.name, str(path) if path else config.calibration_path)
    return CalibratedScorer(encoder.name, encoder.dimension, calibration)
