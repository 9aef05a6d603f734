"""The parts of a recognizer: what embeds, identifies, enrolls and adapts, over one store and encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from voiceprint.dual_run import DualRun
from voiceprint.embedder import Embedder, Probe
from voiceprint.enrollment.adaptation import Adaptation
from voiceprint.enrollment.enroller import Enroller
from voiceprint.identification.gallery import Gallery
from voiceprint.identification.pipeline import Identifier
from voiceprint.identification.query import Query
from voiceprint.identification.shared_index import SharedIndex
from voiceprint.identification.snapshots import IndexSettings

if TYPE_CHECKING:
    from voiceprint.audio import AudioQuality, Recording
    from voiceprint.config import VoiceFingerprintConfig
    from voiceprint.encoder import Encoder
    from voiceprint.storage import Storage


class Parts:
    """The parts of a recognizer, which read `config` at every use."""

    def __init__(
        self,
        storage: Storage,
        encoder: Encoder,
        secondary: Encoder | None,
        config: VoiceFingerprintConfig,
        settings: IndexSettings,
    ) -> None:
        def gallery(encoder: Encoder) -> Gallery:
            shared = SharedIndex.of_process(storage.location, encoder.name, encoder.dimension, settings)
            return Gallery(storage, shared)

        self.settings = settings
        self.gallery = gallery(encoder)
        self.embedder = Embedder(encoder, config)
        self.identifier = Identifier(self.gallery, config)
        self.dual_run: DualRun | None = None
        if secondary is not None:
            self.dual_run = DualRun(self.gallery, gallery(secondary), secondary, config)
        self.enroller = Enroller(storage, self.embedder, encoder, config, self.dual_run)
        everyone = Query(k=1)
        self._adaptation = Adaptation(
            storage, lambda probe: self.identifier.identify(probe, everyone), encoder.name, config
        )

    def add_voiceprint(
        self, caller_id: str, probe: Probe, recording: Recording | None, quality: AudioQuality
    ) -> None:
        """Add a voiceprint of an accepted call to its caller, where `adapt` or `adapt_secondary` say so."""
        self._adaptation.add(caller_id, probe, quality)
        if self.dual_run is not None and recording is not None:
            self.dual_run.matched(caller_id, probe, recording, quality, self._adaptation)
