"""Resemblyzer's network on a CUDA device, by torch."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from voiceprint._lazy import Lazy
from voiceprint._processes import ask
from voiceprint.audio.io.lazy_audio import Samples
from voiceprint.audio.speech.trimming import TrimmedSpeech
from voiceprint.audio.speech.vad import WINDOW
from voiceprint.encoder.base import SpeechEmbedding, check_speech, sum_embeddings
from voiceprint.encoder.partials import FRAMES, count_in_block, sample_blocks
from voiceprint.encoder.torch_network import RUN, Precision, TorchNetwork, import_torch
from voiceprint.encoder.weights import HIDDEN, MELS, read_weights, weights_file
from voiceprint.errors import ConfigurationError, EncoderError, InvalidArgumentError
from voiceprint.models import RESEMBLYZER_SPACE
from voiceprint.validation import shown

logger = logging.getLogger(__name__)

Device = Literal["cpu", "cuda", "auto"]


Question = NDArray[np.float32] | list[NDArray[np.float32]]
"""Spectrograms, as of `TorchNetwork.embed`, or blocks of samples, as of `TorchNetwork.embed_blocks`."""


class _Network(Protocol):
    def embed(self, mels: NDArray[np.float32]) -> NDArray[np.float32]: ...

    def embed_blocks(self, blocks: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]: ...


class _ParentNetwork:
    """The network of the parent process, for a worker process."""

    def embed(self, mels: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(ask(mels))

    def embed_blocks(self, blocks: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        return np.asarray(ask([*blocks]))


class TorchEncoder:
    """Resemblyzer's network and preprocessing on a CUDA device: `OnnxEncoder`'s embeddings, nearly.

    1 - cosine with those of `OnnxEncoder` is under 5e-4 (in float32 on the CPU, under 1e-6); so the space is
    the same, and voiceprints of both can be compared. The first embedding imports torch and starts CUDA,
    which takes seconds. Memory does not grow with the length of the audio, nor with the number of speeches.

    CUDA cannot be used in a process that was forked after its use: there, methods raise `EncoderError`.

    device: "cuda" is the first device that CUDA_VISIBLE_DEVICES leaves; "cpu" is for tests.
    precision: of the LSTM, "float16" or "float32"; None chooses by the device.

    Raises `InvalidArgumentError` for another precision; for another device, `EncoderError` at the first use.
    """

    name = RESEMBLYZER_SPACE
    dimension = HIDDEN
    sample_rate = 16_000

    def __init__(self, device: str = "cuda", precision: Precision | None = None) -> None:
        if precision not in (None, *get_args(Precision)):
            raise InvalidArgumentError(
                f"precision is {shown(precision)}: {' or '.join(get_args(Precision))} is allowed."
            )
        self._network: Lazy[_Network] = Lazy(partial(_load, device, precision), inherited=False)

    @classmethod
    def of_parent(cls) -> TorchEncoder:
        """The encoder for a worker process whose parent answers by `answer`: the device is the parent's."""
        encoder = cls()
        encoder._network = Lazy(_ParentNetwork, inherited=False)
        return encoder

    def answer(self, question: Question) -> NDArray[np.float32]:
        """The embeddings that a worker process asks for, see `WorkerProcesses`."""
        network = self._network.get()
        return network.embed_blocks(question) if isinstance(question, list) else network.embed(question)

    def warm_up(self) -> None:
        """As `Encoder.warm_up`."""
        _ = TrimmedSpeech(np.zeros(WINDOW, dtype=np.float32)).windows  # the VAD
        self._network.get().embed(np.zeros((1, FRAMES, MELS), dtype=np.float32))

    def embed(self, audio: Samples) -> NDArray[np.float32]:
        """As `Encoder.embed`; also of `LazyAudio`, which is converted block by block."""
        return self.embed_speech(TrimmedSpeech(audio)).embedding

    def embed_batch(self, audios: Sequence[Samples]) -> NDArray[np.float32]:
        """As `Encoder.embed_batch`."""
        found = self.embed_speeches([TrimmedSpeech(audio) for audio in audios])
        return np.array([each.embedding for each in found], dtype=np.float32).reshape(-1, HIDDEN)

    def embed_speech(self, speech: TrimmedSpeech) -> SpeechEmbedding:
        """As `PartialEncoder.embed_speech`."""
        (found,) = self.embed_speeches([speech])
        return found

    def embed_speeches(self, speeches: Sequence[TrimmedSpeech]) -> list[SpeechEmbedding]:
        """As `PartialEncoder.embed_speeches`: some thousand partials a run, of whichever speeches."""
        network = self._network.get()
        found: list[list[NDArray[np.float32]]] = [[] for _ in speeches]
        for group in _groups(speeches):
            blocks = [block for _, block in group]
            embeddings = network.embed_blocks(blocks)
            ends = np.cumsum([count_in_block(len(block)) for block in blocks])
            for (owner, _), some in zip(group, np.split(embeddings, ends[:-1]), strict=True):
                found[owner].append(some)
        stacked = [np.concatenate(parts) for parts in found]
        return [sum_embeddings(each) for each in stacked]

    def embed_partials(self, mels: NDArray[np.float32]) -> NDArray[np.float32]:
        """As `PartialEncoder.embed_partials`."""
        return self._network.get().embed(mels)


def cuda_encoder(kind: str, device: Device) -> TorchEncoder | None:
    """The encoder for VOICE_ENCODER=kind on the device, or None for the CPU.

    Raises `ConfigurationError` where the device is "cuda" and the encoder cannot run there; with "auto", a
    warning in the log says why.
    """
    if device == "cpu":
        return None
    obstacle = _obstacle(kind)
    if obstacle is None:
        return TorchEncoder()
    if device == "cuda":
        raise ConfigurationError(f"VOICE_ENCODER_DEVICE is cuda: {obstacle} Or set VOICE_ENCODER_DEVICE=cpu.")
    logger.warning("VOICE_ENCODER_DEVICE is auto, and the encoder runs on the CPU: %s", obstacle)
    return None


def _obstacle(kind: str) -> str | None:
    """The reason why the encoder cannot run on CUDA, None where it can."""
    if kind != "onnx":
        return f"VOICE_ENCODER is {kind}, which runs on the CPU alone. VOICE_ENCODER=onnx runs on CUDA."
    try:
        torch = import_torch()
    except EncoderError as error:
        return str(error)
    if torch.cuda.is_available():
        return None
    if not torch.backends.cuda.is_built():
        return f"the installed torch ({torch.__version__}) is built without CUDA, see docs/install.md."
    return "torch finds no CUDA device: `nvidia-smi` shows the devices and the driver."


_Group = list[tuple[int, NDArray[np.float32]]]


def _groups(speeches: Sequence[TrimmedSpeech]) -> Iterator[_Group]:
    """The samples of all speeches in blocks, each with the index of its speech; `RUN` partials a group."""
    group: _Group = []
    room = RUN
    for owner, speech in enumerate(speeches):
        for block in sample_blocks(check_speech(speech), RUN):
            count = count_in_block(len(block))
            if count > room:
                yield group
                group, room = [], RUN
            group.append((owner, block))
            room -= count
    if group:
        yield group


def _load(device: str, precision: Precision | None) -> TorchNetwork:
    network = TorchNetwork(read_weights(weights_file()), device, precision)
    logger.info("The encoder runs on %s in %s.", device, network.precision)
    return network
