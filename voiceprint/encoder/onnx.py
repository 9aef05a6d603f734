"""The default encoder: Resemblyzer's voices without its costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from voiceprint._lazy import Lazy
from voiceprint.audio.io.lazy_audio import Samples
from voiceprint.audio.speech.trimming import TrimmedSpeech
from voiceprint.audio.speech.vad import WINDOW
from voiceprint.encoder.base import SpeechEmbedding
from voiceprint.encoder.mel import FRAME, HOP, mel_frames
from voiceprint.encoder.network import Network
from voiceprint.encoder.partials import FRAMES, count_partials, partials, spectrograms, stretches
from voiceprint.encoder.weights import HIDDEN, MELS
from voiceprint.encoder.workers import Workers
from voiceprint.errors import EncoderError
from voiceprint.models import RESEMBLYZER_SPACE

# Partials that a run of the network takes at most: see `Network.embed`.
_RUN = 6


class OnnxEncoder:
    """Resemblyzer's network and preprocessing, without torch and librosa: the same embeddings.

    Loads in a fraction of a second, at the first embedding or by `warm_up`; the network is shared by all
    encoders of a process. Memory does not grow with the length of the audio.

    threads: that one call may use, and all calls together beside the callers' own; 0 for one a core.
    """

    name = RESEMBLYZER_SPACE
    dimension = HIDDEN
    sample_rate = 16_000

    _network: ClassVar[Lazy[Network]] = Lazy(Network.load, inherited=False)

    def __init__(self, threads: int = 0) -> None:
        self._workers = Workers(threads)

    def warm_up(self) -> None:
        """As `Encoder.warm_up`."""
        _ = TrimmedSpeech(np.zeros(WINDOW, dtype=np.float32)).windows  # the VAD
        self._network.get().embed(mel_frames(np.zeros(FRAME + (FRAMES - 1) * HOP, dtype=np.float32))[None])

    def embed(self, audio: Samples) -> NDArray[np.float32]:
        """As `Encoder.embed`; the audio may also be a `LazyAudio`, which is converted while it is read."""
        return self.embed_speech(TrimmedSpeech(audio)).embedding

    def embed_speech(self, speech: TrimmedSpeech) -> SpeechEmbedding:
        """As `PartialEncoder.embed_speech`."""
        network, speech = self._network.get(), _checked(speech)
        threads = self._workers.threads
        count = count_partials(len(speech))
        # As even as may be, so that no thread waits for another that has one partial more to do.
        rounds = -(-count // (threads * _RUN))
        each = -(-count // (threads * rounds))
        total = np.zeros(HIDDEN, dtype=np.float64)
        found: list[NDArray[np.float32]] = []
        # Read by this thread alone, as audio may be converted while it is read.
        read = stretches(speech, each)
        while tasks := [partial(_embed_stretch, network, samples) for samples in islice(read, threads)]:
            for embeddings in self._workers.run(tasks):
                total += embeddings.sum(axis=0, dtype=np.float64)
                found.append(embeddings)
        return SpeechEmbedding(_unit(total), np.concatenate(found))

    def embed_partials(self, mels: NDArray[np.float32]) -> NDArray[np.float32]:
        """As `PartialEncoder.embed_partials`."""
        network = self._network.get()
        runs = [mels[first : first + _RUN] for first in range(0, len(mels), _RUN)]
        return np.concatenate(self._workers.run([partial(network.embed, run) for run in runs]))

    def embed_batch(self, audios: Sequence[Samples]) -> NDArray[np.float32]:
        """As `Encoder.embed_batch`."""
        found = self.embed_speeches([TrimmedSpeech(audio) for audio in audios])
        return np.array([one.embedding for one in found], dtype=np.float32).reshape(-1, HIDDEN)

    def embed_speeches(self, speeches: Sequence[TrimmedSpeech]) -> list[SpeechEmbedding]:
        """As `PartialEncoder.embed_speeches`; a run of the network takes partials of several."""
        network = self._network.get()
        found: list[list[NDArray[np.float32]]] = [[] for _ in speeches]
        places = iter(range(len(speeches)))  # shared by the threads: each takes the next
        tasks = [partial(_embed_some, network, speeches, places, found)] * self._workers.threads
        self._workers.run(tasks[: len(speeches)])
        stacked = [np.array(partials, dtype=np.float32) for partials in found]
        return [SpeechEmbedding(_unit(one.sum(axis=0, dtype=np.float64)), one) for one in stacked]


class OnnxInt8Encoder(OnnxEncoder):
    """The same with products of 8 bits where the network bears them: 0.6 of the time, nearly the same prints.

    1 - cosine with Resemblyzer's embedding is 0.0002 in the mean and at most 0.0007, of 633 recordings and
    pieces of them (research/precision.md), and callers are told apart as well; so the space is the same,
    and prints of both compare. The scale of 8 bits is that of what is embedded together: alone and in a
    batch, an audio has embeddings that differ by up to 0.0002 of cosine. Quicker on processors alone that
    multiply 8 bits faster (AVX-512 VNNI, AVX-VNNI, ARM's dot products).
    """

    _network: ClassVar[Lazy[Network]] = Lazy(partial(Network.load, int8=True), inherited=False)


def _embed_stretch(network: Network, samples: NDArray[np.float32]) -> NDArray[np.float32]:
    return network.embed(spectrograms(samples))


def _embed_some(
    network: Network,
    speeches: Sequence[TrimmedSpeech],
    places: Iterator[int],
    found: list[list[NDArray[np.float32]]],
) -> None:
    """Embed speeches until none is left, and append the embeddings of each one's partials to its list."""
    mels = np.empty((_RUN, FRAMES, MELS), dtype=np.float32)
    owners: list[int] = []

    def run() -> None:
        for owner, embedding in zip(owners, network.embed(mels[: len(owners)]), strict=True):
            found[owner].append(embedding)
        owners.clear()

    for place in places:
        for block in partials(_checked(speeches[place]), 4 * _RUN):
            for one in block:
                mels[len(owners)] = one
                owners.append(place)
                if len(owners) == _RUN:
                    run()
    if owners:
        run()


def _checked(speech: TrimmedSpeech) -> TrimmedSpeech:
    if not len(speech):
        raise EncoderError("The audio holds no speech to embed.")
    return speech


def _unit(total: NDArray[np.float64]) -> NDArray[np.float32]:
    norm = float(np.linalg.norm(total))
    if not 0.0 < norm < np.inf:  # every partial's ReLU was closed, or the audio was not finite
        raise EncoderError("The network gave no embedding of this audio.")
    return np.asarray(total / norm, dtype=np.float32)
