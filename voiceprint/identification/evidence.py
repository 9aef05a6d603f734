"""The facts of a decision for the event of its operation, see `voiceprint._audited`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from voiceprint._audited import current, note_answer, note_hits
from voiceprint.models import Identification, Match, SeparatedVoice, Verification

if TYPE_CHECKING:
    from voiceprint.config import VoiceFingerprintConfig
    from voiceprint.identification.acceptance import AcceptanceRule
    from voiceprint.scoring import GalleryScorer

_SMALLEST_FPIR = 1e-15  # whose deviate is finite


def note_identification(
    answer: Identification,
    rule: AcceptanceRule,
    config: VoiceFingerprintConfig,
    threshold: float | None,
    scorer: GalleryScorer | None,
    gallery_size: int,
    encoder: str,
) -> None:
    """Note the verdict and the best match. threshold: argument of the call. gallery_size: callers searched.

    Of several identifications in an operation the first counts, or the first that accepts a caller, as of
    several voices. Those of a secondary encoder do not count.
    """
    operation = current()
    if operation is None:
        return
    earlier = operation.facts
    if earlier.get("encoder", encoder) == encoder:
        note_hits(operation, answer)
    best = best_match(answer)
    if "verdict" in earlier and (
        earlier["verdict"] == "accepted"
        or earlier.get("encoder") != encoder
        or best is None
        or not best.accepted
    ):
        return
    operation.note(
        **_of_match(best),
        **_of_rule(rule, config, threshold),
        gallery_size=gallery_size,
        encoder=encoder,
    )
    note_answer(operation, answer)
    if best is not None and best.llr is not None and scorer is not None:
        statistics = scorer.statistics
        assert statistics is not None  # noqa: S101  it gave the llr
        deviations = scorer.calibration.deviations(best.llr)
        rate = statistics.fpir(statistics.score(deviations), gallery_size)
        rate = min(max(rate, _SMALLEST_FPIR), 1.0 - _SMALLEST_FPIR)
        operation.note(deviations=deviations, deviate=statistics.deviate(rate))


def note_verification(
    found: Verification,
    rule: AcceptanceRule,
    config: VoiceFingerprintConfig,
    threshold: float | None,
    encoder: str,
) -> None:
    """Note a verification; of several in an operation the first counts."""
    operation = current("verify")
    if operation is None or "verdict" in operation.facts:
        return
    note_answer(operation, found)
    operation.note(
        caller=found.caller_id,
        similarity=found.similarity,
        llr=found.llr,
        fpir=found.fmr,
        probability=found.probability,
        **_of_rule(rule, config, threshold),
        gallery_size=1,
        encoder=encoder,
    )


def note_voices(voices: Sequence[SeparatedVoice]) -> None:
    """Note the accepted voice with the most speech, or where none is, the voice with the most."""
    operation = current()
    if operation is None or not voices:
        return
    voice = max(voices, key=lambda voice: (voice.accepted is not None, voice.net_speech_s))
    operation.note(
        **_of_match(best_match(voice.matches)),
        deviations=None,
        deviate=None,
        speech_s=voice.net_speech_s,
        quality=voice.quality.score,
        count=len(voices),
    )


def best_match(matches: Sequence[Match]) -> Match | None:
    """The best accepted match, else the best."""
    return next((match for match in matches if match.accepted), matches[0] if matches else None)


def _of_match(best: Match | None) -> dict[str, Any]:
    if best is None:
        return {"verdict": "not_enrolled"}
    return {
        "caller": best.caller_id,
        "verdict": best.verdict,
        "similarity": best.similarity,
        "llr": best.llr,
        "fpir": best.fpir,
        "probability": best.probability,
    }


def _of_rule(rule: AcceptanceRule, config: VoiceFingerprintConfig, threshold: float | None) -> dict[str, Any]:
    """The rule of a decision, its value, and the origin of the value."""
    by_default = rule.is_default_target or (
        rule.target is None and "similarity_threshold" not in config.model_fields_set
    )
    return {
        "rule": "target" if rule.target is not None else "probability" if rule.calibrated else "threshold",
        "limit": rule.threshold if rule.target is None else rule.target,
        "limit_from": "argument" if threshold is not None else "default" if by_default else "configured",
    }
