"""The acceptance of matches and verifications."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from voiceprint.models import RESEMBLYZER_SPACE

if TYPE_CHECKING:
    from voiceprint.config import VoiceFingerprintConfig

DEFAULT_TARGET: Final = 0.01
"""Target of the default rule in other spaces than Resemblyzer's, where a cosine of 0.75 has no meaning: a
share of strangers, 0 to 1. Doubled, twice as many strangers are accepted."""


def configured_target(config: VoiceFingerprintConfig, space: str) -> float | None:
    """The target FPIR by which the settings decide in a space, 0 to 1; None where a threshold decides.

    Without a target, threshold or calibrated similarity in the settings, a space other than Resemblyzer's has
    `DEFAULT_TARGET`.
    """
    if config.target_fpir is not None:
        return config.target_fpir
    return DEFAULT_TARGET if _has_default_target(config, space) else None


def configured_threshold(config: VoiceFingerprintConfig, space: str) -> float | None:
    """The cosine threshold of the settings for a space; None without one in another than Resemblyzer's."""
    is_set = "similarity_threshold" in config.model_fields_set
    return config.similarity_threshold if is_set or space == RESEMBLYZER_SPACE else None


def _has_default_target(config: VoiceFingerprintConfig, space: str) -> bool:
    return configured_threshold(config, space) is None and not config.calibrated_similarity


class AcceptanceRule(NamedTuple):
    """Accept from a similarity of `threshold`, or up to an expected false-positive rate of `target`.

    target: expected false-positive identification rate of an identification, or false-match rate of a
        verification, 0 to 1; None lets the threshold decide.
    calibrated: similarities are probabilities, not cosines.
    is_default: the configured cosine threshold decides.
    is_default_target: `DEFAULT_TARGET` decides, which nobody has set.
    """

    threshold: float
    target: float | None = None
    calibrated: bool = False
    is_default: bool = False
    is_default_target: bool = False

    @classmethod
    def of_identification(
        cls, config: VoiceFingerprintConfig, space: str, threshold: float | None
    ) -> AcceptanceRule:
        """The rule of `match_caller`, `identify` and streams. threshold: argument of the call."""
        return cls._of(config, space, threshold, config.target_fpir)

    @classmethod
    def of_watchlist(cls, config: VoiceFingerprintConfig, space: str, group: str) -> AcceptanceRule:
        """The rule of a watched group: its own target FPIR, else the rule of identification."""
        return cls._of(config, space, None, config.watch_target(group))

    @classmethod
    def of_verification(
        cls, config: VoiceFingerprintConfig, space: str, threshold: float | None
    ) -> AcceptanceRule:
        """The rule of `verify_caller`: a target FPIR is the false-match rate with one caller enrolled."""
        target = config.target_fpir if config.target_fmr is None else config.target_fmr
        return cls._of(config, space, threshold, target)

    @classmethod
    def _of(
        cls, config: VoiceFingerprintConfig, space: str, threshold: float | None, target: float | None
    ) -> AcceptanceRule:
        calibrated = config.calibrated_similarity
        if threshold is not None:
            return cls(threshold, calibrated=calibrated)
        if target is None and _has_default_target(config, space):
            return cls(config.similarity_threshold, DEFAULT_TARGET, is_default_target=True)
        by_cosine = target is None and not calibrated
        return cls(config.similarity_threshold, target, calibrated, is_default=by_cosine)

    def accepts(self, similarity: float, rate: float | None, probability: float | None) -> bool:
        """Whether to accept a match with this similarity, expected false-positive rate, and probability."""
        if self.target is not None:
            return rate is not None and rate <= self.target
        # Without a probability the similarity is a cosine, and the threshold is meant for a probability.
        return similarity >= self.threshold and not (self.calibrated and probability is None)
