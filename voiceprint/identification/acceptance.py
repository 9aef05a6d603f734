"""The acceptance of matches and verifications."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from voiceprint.config import VoiceFingerprintConfig


class AcceptanceRule(NamedTuple):
    """Accept from a similarity of `threshold`, or up to an expected false-positive rate of `target`.

    target: expected false-positive identification rate of an identification, or false-match rate of a
        verification, 0 to 1; None lets the threshold decide.
    calibrated: similarities are probabilities, not cosines.
    is_default: the configured cosine threshold decides.
    """

    threshold: float
    target: float | None = None
    calibrated: bool = False
    is_default: bool = False

    @classmethod
    def of_identification(cls, config: VoiceFingerprintConfig, threshold: float | None) -> AcceptanceRule:
        """The rule of `match_caller`, `identify` and streams. threshold: argument of the call."""
        return cls._of(config, threshold, config.target_fpir)

    @classmethod
    def of_verification(cls, config: VoiceFingerprintConfig, threshold: float | None) -> AcceptanceRule:
        """The rule of `verify_caller`: a target FPIR is the false-match rate with one caller enrolled."""
        return cls._of(
            config, threshold, config.target_fpir if config.target_fmr is None else config.target_fmr
        )

    @classmethod
    def _of(
        cls, config: VoiceFingerprintConfig, threshold: float | None, target: float | None
    ) -> AcceptanceRule:
        calibrated = config.calibrated_similarity
        if threshold is not None:
            return cls(threshold, calibrated=calibrated)
        by_cosine = target is None and not calibrated
        return cls(config.similarity_threshold, target, calibrated, is_default=by_cosine)

    def accepts(self, similarity: float, rate: float | None, probability: float | None) -> bool:
        """Whether to accept a match with this similarity, expected false-positive rate, and probability."""
        if self.target is not None:
            return rate is not None and rate <= self.target
        # Without a probability the similarity is a cosine, and the threshold is meant for a probability.
        return similarity >= self.threshold and not (self.calibrated and probability is None)
