"""Adaptation: a confident match adds a voiceprint to its caller.

Off unless `VOICE_ADAPT` is set, because a wrong match then has a lasting effect. Safeguards against
strangers:

- An adapted print only takes a free slot (`VOICE_MAX_VOICEPRINTS_PER_CALLER`) of its embedding space and
  replaces nothing; a caller without a print in that space gets none. Only enrollment replaces prints, the
  oldest of the space first, and each enrollment adds a print of its own: at least one enrolled print always
  remains, and as many enrollments as there are slots remove every adapted print.
- The call must sound like each of the caller's prints by itself, not like their mean. Stores do not record
  which prints are adapted, but at least one is enrolled, so a chain of adapted prints cannot drift away from
  the enrolled voice. (With `VOICE_ADAPT_SECONDARY` the first print of a space may come from a match in the
  other: then the chain starts from that call.)
- The match is repeated among all callers, whatever the candidates of the call were, and has at most half of
  the target FPIR: see `is_confident`.
- The audio is long and good enough for enrollment, of one voice, and no mix of channels that
  differ.

A stranger who once meets all of this holds a slot until enrollment replaces the print. Of strangers' calls
of 5 s, 0.5 to 3.5 % do by a target FPIR of 0.01, and 2 to 8 % by 0.05; of callers' own calls, 26 to 73 % and
41 to 96 % (`research/adaptation.md`: 10 or 62 callers with one print, three draws).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from voiceprint._audited import recording
from voiceprint.enrollment.agreement import is_measured, same_recording, sounds_alike
from voiceprint.enrollment.provenance import provenance_of
from voiceprint.errors import CallerOptedOutError, ConsentRequiredError, StorageUnavailableError
from voiceprint.models import Match, Voiceprint

if TYPE_CHECKING:
    from voiceprint.audio import AudioQuality
    from voiceprint.config import VoiceFingerprintConfig
    from voiceprint.embedder import Probe
    from voiceprint.storage import Storage

logger = logging.getLogger(__name__)

SHARE: Final = 0.5
"""Share of the target FPIR up to which a match is confident."""

TARGET: Final = 0.01
"""The target FPIR where none is configured."""

_ANY_NUMBER: Final = 10**6  # of voiceprints: `save` replaces none, even if another process fills the slot


def is_confident(matches: list[Match], target_fpir: float | None) -> bool:
    """Whether the best match is certain enough to be enrolled: at most half of the target FPIR.

    Never where the gallery is too small for an FPIR.
    """
    limit = SHARE * (TARGET if target_fpir is None else target_fpir)
    return bool(matches) and matches[0].fpir is not None and matches[0].fpir <= limit


class Adaptation:
    """Enrolls confident matches as voiceprints of their callers, in free slots.

    identify: returns the best match among all callers. encoder: name of the embedding space.
    """

    def __init__(
        self,
        storage: Storage,
        identify: Callable[[Probe], list[Match]],
        encoder: str,
        config: VoiceFingerprintConfig,
    ) -> None:
        self._storage = storage
        self._identify = identify
        self._encoder = encoder
        self._config = config

    def add(
        self, caller_id: str, probe: Probe, quality: AudioQuality, file: str | None = None
    ) -> Voiceprint | None:
        """With `adapt` set, store the plain embedding of an accepted probe that qualifies; else None.

        file: name of the recording's file, for the provenance.

        A failed write is logged only: the call has its answer.
        """
        if not self._config.adapt:
            return None
        caller = self._storage.get(caller_id)
        stored = () if caller is None else caller.voiceprints
        prints = [print_ for print_ in stored if print_.encoder == self._encoder]
        if not prints or len(prints) >= self._config.max_voiceprints_per_caller:
            return None
        if not self._qualifies(caller_id, probe, quality, prints):
            return None
        try:
            provenance = provenance_of(quality, file=file)
            voiceprint = Voiceprint(caller_id, probe.plain, encoder=self._encoder, provenance=provenance)
            with recording(self._storage.auditor, "adapt", caller=caller_id, encoder=self._encoder):
                return self._store(voiceprint)
        except StorageUnavailableError as error:
            logger.warning("The voiceprint of a confident match could not be stored: %s", error)
        except (CallerOptedOutError, ConsentRequiredError):  # the caller has refused meanwhile, or not agreed
            logger.info(
                "The voiceprint of a confident match was not stored: the caller has not agreed to it."
            )
        return None

    def _qualifies(
        self, caller_id: str, probe: Probe, quality: AudioQuality, prints: list[Voiceprint]
    ) -> bool:
        return (
            is_measured(self._encoder)
            and same_recording(probe.plain, prints) is None
            and self.is_certain(caller_id, probe, quality, prints)
        )

    def is_certain(
        self, caller_id: str, probe: Probe, quality: AudioQuality, prints: list[Voiceprint]
    ) -> bool:
        """Whether an accepted probe is certain enough of its caller, and its audio good enough, to be stored.

        prints: all voiceprints of the caller in this space. In a space without a limit for them, only the
        repeated match decides.
        """
        if (
            quality.duration_s < self._config.enrollment_duration
            or quality.score < self._config.min_audio_quality
            or not {"channels_differ", "several_voices"}.isdisjoint(quality.feedback)
        ):
            return False
        if not all(sounds_alike(probe.plain, [print_]) for print_ in prints):
            return False
        matches = self._identify(probe)
        return is_confident(matches, self._config.target_fpir) and matches[0].caller_id == caller_id

    def _store(self, voiceprint: Voiceprint) -> Voiceprint | None:
        stored = self._storage.save(
            voiceprint, max_voiceprints=_ANY_NUMBER, require_consent=self._config.require_consent
        )
        caller = self._storage.get(voiceprint.caller_id)
        if caller is not None and [print_.id for print_ in caller.voiceprints] == [stored.id]:
            # The caller was deleted meanwhile, and `save` has created a new one.
            self._storage.delete(voiceprint.caller_id)
            return None
        logger.info("The caller %r was matched with confidence: one voiceprint added.", stored.caller_id)
        return stored
