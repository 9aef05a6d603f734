"""The parts of a recognizer: what embeds, identifies, enrolls and adapts, over one store and encoder."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from voiceprint.audio.io.encodings import PCM, AudioFormat
from voiceprint.config import VoiceFingerprintConfig
from voiceprint.dual_run import DualRun
from voiceprint.embedder import Embedder, OwnEmbedding, Probe
from voiceprint.encoder import Encoder
from voiceprint.enrollment.adaptation import Adaptation
from voiceprint.enrollment.enroller import Enroller, EnrollmentOptions
from voiceprint.errors import InvalidArgumentError
from voiceprint.identification.gallery import Gallery
from voiceprint.identification.pipeline import Identifier
from voiceprint.identification.query import Query
from voiceprint.identification.screening import Screener
from voiceprint.identification.shared_index import SharedIndex
from voiceprint.identification.snapshots import IndexSettings
from voiceprint.storage import Storage
from voiceprint.validation import shown

if TYPE_CHECKING:
    from voiceprint.audio import AudioBuffer, AudioQuality, Recording
    from voiceprint.embedder import EmbeddingLike
    from voiceprint.models import Voiceprint


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
            # A store in memory has an index in memory.
            own = settings if storage.is_persistent else settings._replace(urls=())
            shared = SharedIndex.of_process(storage.location, encoder.name, encoder.dimension, own)
            return Gallery(storage, shared)

        self.settings = settings
        self.gallery = gallery(encoder)
        self.embedder = Embedder(encoder, config)
        self.identifier = Identifier(self.gallery, config)
        self.screener = Screener(storage.location, config)
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
        self._adaptation.add(caller_id, probe, quality, None if recording is None else recording.name)
        if self.dual_run is not None and recording is not None:
            self.dual_run.matched(caller_id, probe, recording, quality, self._adaptation)

    def probe(
        self,
        audio_buffer: AudioBuffer | Recording | None,
        audio_format: AudioFormat,
        embedding: EmbeddingLike | None,
        encoder: str | None,
    ) -> tuple[Probe, Recording | None]:
        """The probe of audio, with its recording, or of an application's own embedding, with None."""
        source = self.embedder.source(audio_buffer, embedding, encoder, audio_arguments=audio_format != PCM)
        if isinstance(source, OwnEmbedding):
            return Probe(source.plain), None
        recording = self.embedder.recording(source, audio_format)
        return self.embedder.probe(recording), recording

    def enrollment(
        self,
        caller_id: str,
        audio_buffer: AudioBuffer | Recording | None,
        metadata: dict[str, Any] | None,
        embedding: EmbeddingLike | None,
        encoder: str | None,
        options: EnrollmentOptions,
    ) -> Callable[[Callable[[], bool]], Voiceprint | None]:
        """The enrollment of audio or of an application's own embedding, to be called with `may_store`."""
        self.embedder.check_enabled()
        options.check()
        audio_arguments = options.audio_format != PCM or options.on_several_voices != "refuse"
        source = self.embedder.source(audio_buffer, embedding, encoder, audio_arguments=audio_arguments)
        if isinstance(source, OwnEmbedding):
            return partial(self.enroller.enroll_own, caller_id, source, metadata, options)
        return partial(self.enroller.enroll, (caller_id, source, metadata), options)


def check_attribute(name: str, value: object) -> None:
    """Raise `InvalidArgumentError` for an attribute of a recognizer with a value of another kind."""
    if name == "storage" and not isinstance(value, Storage):
        raise InvalidArgumentError(f"storage_backend is {shown(value)}: give a Storage.")
    if name == "config" and not isinstance(value, VoiceFingerprintConfig):
        raise InvalidArgumentError(f"config is {shown(value)}: give a VoiceFingerprintConfig.")
    # `Encoder` is a protocol, which the class of an encoder meets too.
    is_encoder = isinstance(value, Encoder) and not isinstance(value, type)
    if (name == "encoder" and not is_encoder) or (
        name == "secondary" and not is_encoder and value is not None
    ):
        raise InvalidArgumentError(f"{name} is {shown(value)}: give an Encoder.")
