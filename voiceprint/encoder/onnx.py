"""The default encoder: Resemblyzer's network in ONNX Runtime."""

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
from voiceprint.encoder.base import SpeechEmbedding, check_speech, sum_embeddings
from voiceprint.encoder.mel import FRAME, HOP, mel_frames
from voiceprint.encoder.network import Network
from voiceprint.encoder.partials import (
    FRAMES,
    count_partials,
    partials,
    sample_blocks,
    spectrograms,
)
from voiceprint.encoder.weights import HIDDEN, MELS
from voiceprint.encoder.workers import Workers
from voiceprint.models import RESEMBLYZER_SPACE

_BATCH = 6  # partials in a run of the network at most: see `Network.embed`


class OnnxEncoder:
    """Resemblyzer's network and preprocessing, without torch and librosa: the same embeddings.

    Loads in a fraction of a second, at the first embedding or by `warm_up`; the network is shared by all
    encoders of a process. Memory does not grow with the length of the audio.

    threads: for one call, and for all calls together beside the calling threads; 0 for one a core.
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
        """As `Encoder.embed`; also of `LazyAudio`, which is converted block by block."""
        return self.embed_speech(TrimmedSpeech(audio)).embedding

    def embed_speech(self, speech: TrimmedSpeech) -> SpeechEmbedding:
        """As `SpeechEncoder.embed_speech`."""
        network, speech = self._network.get(), check_speech(speech)
        count = count_partials(len(speech))
        found: list[NDArray[np.float32]] = []
        with self._workers.share() as threads:
            # As even as possible, so that no thread waits for another with one partial more.
            rounds = -(-count // (threads * _BATCH))
            each = -(-count // (threads * rounds))
            # Only this thread reads, because reading lazy audio converts it.
            blocks = sample_blocks(speech, each)
            while tasks := [partial(_embed_block, network, samples) for samples in islice(blocks, threads)]:
                found += self._workers.run(tasks)
        return sum_embeddings(np.concatenate(found))

    def embed_partials(self, mels: NDArray[np.float32]) -> NDArray[np.float32]:
        """As `PartialEncoder.embed_partials`."""
        network = self._network.get()
        runs = [mels[first : first + _BATCH] for first in range(0, len(mels), _BATCH)]
        return np.concatenate(self._workers.run([partial(network.embed, run) for run in runs]))

    def embed_batch(self, audios: Sequence[Samples]) -> NDArray[np.float32]:
        """As `Encoder.embed_batch`."""
        found = self.embed_speeches([TrimmedSpeech(audio) for audio in audios])
        return np.array([each.embedding for each in found], dtype=np.float32).reshape(-1, HIDDEN)

    def embed_speeches(self, speeches: Sequence[TrimmedSpeech]) -> list[SpeechEmbedding]:
        """As `SpeechEncoder.embed_speeches`; a run of the network may hold partials of several."""
        network = self._network.get()
        found: list[list[NDArray[np.float32]]] = [[] for _ in speeches]
        queue = iter(range(len(speeches)))  # shared by the threads
        tasks = [partial(_embed_queued, network, speeches, queue, found)] * self._workers.threads
        self._workers.run(tasks[: len(speeches)])
        return [sum_embeddings(np.array(partials, dtype=np.float32)) for partials in found]


class OnnxInt8Encoder(OnnxEncoder):
    """`OnnxEncoder` with 8-bit products: 0.6 of the time, nearly equal embeddings.

    1 - cosine with Resemblyzer's embedding is 0.0002 in the mean and at most 0.0007, over 633 recordings and
    pieces of them (research/precision.md), and the error rates are equal; so the space is the same, and
    voiceprints of both can be compared. The 8-bit scale depends on the batch: alone and in a batch, the
    embeddings of an audio differ by up to 0.0002 of cosine. Faster only on processors with instructions for
    8-bit products (AVX-512 VNNI, AVX-VNNI, ARM's dot products).
    """

    _network: ClassVar[Lazy[Network]] = Lazy(partial(Network.load, int8=True), inherited=False)


def _embed_block(network: Network, samples: NDArray[np.float32]) -> NDArray[np.float32]:
    return network.embed(spectrograms(samples))


def _embed_queued(
    network: Network,
    speeches: Sequence[TrimmedSpeech],
    queue: Iterator[int],
    found: list[list[NDArray[np.float32]]],
) -> None:
    """Embed speeches until the queue is empty; append the embeddings of their partials to `found`."""
    mels = np.empty((_BATCH, FRAMES, MELS), dtype=np.float32)
    owners: list[int] = []

    def run() -> None:
        for owner, embedding in zip(owners, network.embed(mels[: len(owners)]), strict=True):
            found[owner].append(embedding)
        owners.clear()

    for index in queue:
        for block in partials(check_speech(speeches[index]), 4 * _BATCH):
            for mel in block:
                mels[len(owners)] = mel
                owners.append(index)
                if len(owners) == _BATCH:
                    run()
    if owners:
        run()
