"""Dual running: a secondary encoder beside the recognizer's own, before an enrolled base moves to it.

Calls are enrolled and matched with both encoders. The recognizer's own gives all answers; the log has both
verdicts, without ids or scores, so that the encoders can be compared on the calls of every day. No failure of
the secondary encoder reaches a caller: failures are logged.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from voiceprint.audio import AudioQuality, Recording
from voiceprint.embedder import Embedder, Probe
from voiceprint.encoder import Encoder
from voiceprint.enrollment.adaptation import Adaptation
from voiceprint.enrollment.augmentation import PlannedAugmentation, augmentation_plan, augmented_embeddings
from voiceprint.enrollment.provenance import provenance_of
from voiceprint.enrollment.writer import VoiceprintWriter
from voiceprint.errors import CallerNotFoundError, ConfigurationError, VoiceprintError
from voiceprint.identification.gallery import Gallery
from voiceprint.identification.pipeline import Identifier
from voiceprint.identification.query import Query
from voiceprint.models import Match, Provenance, Verification, Voiceprint

if TYPE_CHECKING:
    from voiceprint.config import VoiceFingerprintConfig

logger = logging.getLogger(__name__)


class DualRun:
    """Enrolls and matches with a secondary encoder what the recognizer enrolls and matches with its own.

    gallery: the recognizer's own, and the one of the secondary encoder over the same store.
    Raises `ConfigurationError` where both encoders have the same space.
    """

    def __init__(
        self, own: Gallery, gallery: Gallery, encoder: Encoder, config: VoiceFingerprintConfig
    ) -> None:
        if own.encoder == gallery.encoder:
            raise ConfigurationError(
                f"The secondary encoder has the space of the first, {own.encoder!r}: name another in "
                "VOICE_ENCODER_SECONDARY, or unset it."
            )
        self.gallery = gallery
        gallery.expects_other_spaces()
        self._own_space = own.encoder
        self._storage = own.storage
        self._encoder = encoder
        self._config = config

    def _embedder(self) -> Embedder:
        return Embedder(self._encoder, self._config.for_other_encoder())

    def _identifier(self) -> Identifier:
        return Identifier(self.gallery, self._config.for_other_encoder())

    # Enrollment

    def voiceprint(self, caller_id: str, recording: Recording, provenance: Provenance) -> Voiceprint | None:
        """The voiceprint of a recording of one voice; None where the secondary encoder fails."""
        try:
            embedding = self._embedder().embed(recording, one_voice=True)
            plan = augmentation_plan(self._encoder, recording.quality)
            augmented = None
            if plan and self._config.enroll_simulated_lines:
                planned = PlannedAugmentation(recording, embedding, plan)
                (augmented,) = augmented_embeddings(self._encoder, [planned])
        except Exception as error:  # noqa: BLE001 - an encoder may raise anything, and must not cost the enrollment
            self._log_failure(error)
            return None
        return Voiceprint(
            caller_id,
            embedding,
            encoder=self._encoder.name,
            augmented=augmented,
            provenance=provenance,
        )

    def store(self, voiceprints: Sequence[Voiceprint]) -> int:
        """Store voiceprints of enrolled callers; `last_seen` is left as it is. Returns the number stored."""
        limit = self._config.max_voiceprints_per_caller
        writer = VoiceprintWriter(
            self._storage,
            limit,
            "store",
            enrolled_only=True,
            require_consent=self._config.require_consent,
        )
        results = writer.store(voiceprints)
        failures = [result for result in results if isinstance(result, VoiceprintError)]
        for failure in failures:
            self._log_failure(failure)
        return len(results) - len(failures)

    # Matching

    def identified(self, recording: Recording, query: Query, matches: Sequence[Match]) -> None:
        """Identify with the secondary encoder too, and log both verdicts.

        matches: the answer of the recognizer's own encoder. A threshold of the query is not used, because it
        is one of another space.
        """
        try:
            probe = self._embedder().probe(recording, one_voice=True)
            others = self._identifier().identify(probe, query._replace(threshold=None, watch=()))
        except Exception as error:  # noqa: BLE001 - an encoder may raise anything, and must not cost the answer
            self._log_failure(error)
            return
        own, other = _best(matches), _best(others)
        same = own is not None and other is not None and own.caller_id == other.caller_id
        agreement = "the same best caller" if same else "no common best caller"
        self._log_verdicts("identification", _verdict(own), _verdict(other), agreement)

    def verified(self, recording: Recording, verification: Verification) -> None:
        """Verify with the secondary encoder too, and log both verdicts."""
        identifier = self._identifier()
        try:
            prints = identifier.voiceprints(verification.caller_id)
            probe = self._embedder().probe(recording, one_voice=True)
            other = "accepted" if identifier.verify(probe, prints, None).accepted else "rejected"
        except CallerNotFoundError:
            other = "not enrolled"
        except Exception as error:  # noqa: BLE001 - as above
            self._log_failure(error)
            return
        own = "accepted" if verification.accepted else "rejected"
        self._log_verdicts("verification", own, other)

    def matched(
        self,
        caller_id: str,
        probe: Probe,
        recording: Recording,
        quality: AudioQuality,
        adaptation: Adaptation,
    ) -> Voiceprint | None:
        """With `adapt_secondary` set, enroll a certain caller who has no voiceprint of the secondary encoder.

        probe, quality: of the accepted call. adaptation: says how certain the recognizer's own encoder is.
        """
        if not self._config.adapt_secondary:
            return None
        caller = self._storage.get(caller_id)
        prints = () if caller is None else caller.voiceprints
        own = [one for one in prints if one.encoder == self._own_space]
        if not own or any(one.encoder == self._encoder.name for one in prints):
            return None
        if not adaptation.is_certain(caller_id, probe, quality, own):
            return None
        new = self.voiceprint(caller_id, recording, provenance_of(quality, file=recording.name))
        if new is None or not self.store([new]):
            return None
        logger.info(
            "The caller %r was matched with confidence, and is enrolled with the encoder %r too.",
            caller_id,
            self._encoder.name,
        )
        return new

    def _log_verdicts(self, kind: str, own: str, other: str, agreement: str = "") -> None:
        verdicts = {self._own_space: own, self._encoder.name: other}
        logger.info(
            "Dual run, %s: %s%s.",
            kind,
            ", ".join(f"{space} {verdict}" for space, verdict in verdicts.items()),
            f"; {agreement}" if agreement else "",
            extra={"dual_run": {"kind": kind, "verdicts": verdicts, "agreement": agreement}},
        )

    def _log_failure(self, error: Exception) -> None:
        # The message of an error that is not ours may hold anything.
        message = error if isinstance(error, VoiceprintError) else type(error).__name__
        logger.warning("The secondary encoder %r: %s", self._encoder.name, message)


def _best(matches: Sequence[Match]) -> Match | None:
    """The best accepted match, else the best."""
    return next((match for match in matches if match.accepted), matches[0] if matches else None)


def _verdict(match: Match | None) -> str:
    return "nobody enrolled" if match is None else match.verdict
