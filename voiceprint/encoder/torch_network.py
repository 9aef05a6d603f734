"""Resemblyzer's network run by torch on a CUDA device: spectrograms and network, thousands of partials a run.

The weights and the spectrogram are those of `network.py` and `mel.py`. torch is imported when a network is
loaded, not before.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from voiceprint.encoder.combined import CombinedCalls
from voiceprint.encoder.mel import FRAME, HOP, mel_filters, windowed_transform
from voiceprint.encoder.partials import FRAMES, STEP, count_in_block
from voiceprint.encoder.weights import HIDDEN, LAYERS, MELS, Weights
from voiceprint.errors import EncoderError

if TYPE_CHECKING:
    import torch

Precision = Literal["float16", "float32"]

RUN: Final = 4096
"""Partials in a run of the network at most: in float16, 1.1 MB of the device each, 4.4 GB together. Halved,
the network is 28 % slower on an H200; doubled, a run takes twice the memory."""

# With inputs padded by zeros to these multiples, and each layer by itself, cuDNN keeps the weights of a layer
# in registers: up to 16 partials take 0.7 ms in place of 8 on an H200, and large runs half the memory.
_INPUTS: Final = 128
_PARTIALS: Final = 8

_FRAMES_TOGETHER: Final = 1 << 16  # frames transformed at once: 4 KB each, 260 MB
_HALF: Final = FRAME // 2
_TINY: Final = float(np.finfo(np.float32).tiny)
_LARGEST_FLOAT16: Final = 65504.0
_TENSOR_CORES: Final = (7, 0)  # compute capability from which float16 is faster than float32


class TorchNetwork:
    """The network on a device.

    Thread-safe: threads prepare their input at once, and take turns on the device, so that its memory stays
    bounded. Calls that wait for a turn share the next one.

    device: "cuda", "cuda:1" and so on; "cpu" is for tests.
    precision: of the LSTM; None is float16 on a device with tensor cores, otherwise float32. Spectrograms and
        the last layer are float32. On CUDA, float32 is as exact as `torch.backends.cudnn.allow_tf32` allows.

    Raises `EncoderError` where torch is absent or the device cannot be used.
    """

    def __init__(self, weights: Weights, device: str, precision: Precision | None = None) -> None:
        self._torch = torch = import_torch()
        turn = threading.Lock()
        self._embed_packed = CombinedCalls(self._run_packed, lambda packed: len(packed.starts), RUN, turn)
        self._embed_mels = CombinedCalls(self._run_mels, len, RUN, turn)
        self.run = RUN
        """Partials in a run at most; less after the device ran out of memory."""
        with _torch_errors(f"cannot load the encoder on {device}"):
            self._device = torch.device(device)
            if precision is None:
                precision = "float16" if self._has_tensor_cores() else "float32"
            self._dtype = getattr(torch, precision)
            self._layers = [self._load_layer(weights, layer) for layer in range(LAYERS)]
            self._linear = self._load(weights["linear.weight"].T), self._load(weights["linear.bias"])
            self._cosines, self._sines = map(self._load, windowed_transform())
            self._filters = self._load(mel_filters())
            self._frames = torch.arange(FRAMES, device=self._device)[:, None]

    @property
    def precision(self) -> str:
        """Data type of the LSTM: "float16" or "float32"."""
        return str(self._dtype).removeprefix("torch.")

    def embed(self, mels: NDArray[np.float32]) -> NDArray[np.float32]:
        """The embeddings of partials, float32[n, 256] of length 1, from float32[n, 160, 40]; n >= 1.

        Raises `EncoderError`.
        """
        with _torch_errors(f"failed on {len(mels)} partials"):
            return self._embed_mels(mels)

    def embed_blocks(self, blocks: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """The embeddings of the partials in the blocks, float32[n, 256] of length 1, in order.

        blocks: at least one, from `partials.sample_blocks`. Raises `EncoderError`.
        """
        with _torch_errors(f"failed on {sum(map(len, blocks))} samples"):
            return self._embed_packed(self._pack(blocks))

    # Input

    def _load_layer(self, weights: Weights, layer: int) -> torch.nn.LSTM:
        inputs = HIDDEN if layer else _INPUTS
        lstm = self._torch.nn.LSTM(inputs, HIDDEN)
        state = {name: weights[f"lstm.{name.replace('_l0', f'_l{layer}')}"] for name in lstm.state_dict()}
        to_states = state["weight_ih_l0"]
        state["weight_ih_l0"] = np.pad(to_states, ((0, 0), (0, inputs - to_states.shape[1])))
        lstm.load_state_dict({name: self._torch.from_numpy(values) for name, values in state.items()})
        loaded: torch.nn.LSTM = lstm.to(self._device, self._dtype).requires_grad_(False)
        return loaded

    def _pack(self, blocks: Sequence[NDArray[np.float32]]) -> _Packed:
        hops = [-(-len(block) // HOP) for block in blocks]
        # Page-locked memory: from other memory, the copy to the device takes longer than the network.
        samples = self._torch.empty(sum(hops) * HOP, pin_memory=self._device.type == "cuda")
        room = samples.numpy()
        starts, begin = [], 0
        for block, count in zip(blocks, hops, strict=True):
            place = room[begin * HOP : (begin + count) * HOP]
            place[: len(block)] = block
            place[len(block) :] = 0.0
            starts.append(begin + STEP * np.arange(count_in_block(len(block))))
            begin += count
        return _Packed(samples, np.concatenate(starts))

    def _load(self, values: NDArray[np.float32]) -> torch.Tensor:
        # Not by from_numpy, which warns of arrays that are read-only, such as parts of a caller's audio.
        loaded: torch.Tensor = self._torch.tensor(values, device=self._device)
        return loaded

    # Runs

    def _run_mels(self, mels: list[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        joined = mels[0] if len(mels) == 1 else np.concatenate(mels)
        found = self._in_runs(
            len(joined), lambda first, last: self._embed(self._load(joined[first:last]).transpose(0, 1))
        )
        return _split(found, [*map(len, mels)])

    def _run_packed(self, packed: list[_Packed]) -> list[NDArray[np.float32]]:
        joined = packed[0] if len(packed) == 1 else self._joined(packed)
        found = self._in_runs(len(joined.starts), lambda first, last: self._embed_part(joined, first, last))
        return _split(found, [len(each.starts) for each in packed])

    def _joined(self, packed: list[_Packed]) -> _Packed:
        samples = self._torch.cat([each.samples.to(self._device, non_blocking=True) for each in packed])
        begins = np.cumsum([0] + [len(each.samples) // HOP for each in packed[:-1]])
        starts = [begin + each.starts for begin, each in zip(begins, packed, strict=True)]
        return _Packed(samples, np.concatenate(starts))

    def _in_runs(self, count: int, run: Callable[[int, int], torch.Tensor]) -> NDArray[np.float32]:
        """Call `run(first, last)` for all of `count` partials, for fewer at once where memory is short."""
        found = np.empty((count, HIDDEN), dtype=np.float32)
        first = 0
        with self._torch.inference_mode():
            while first < count:
                last = min(first + self.run, count)
                try:
                    found[first:last] = run(first, last).cpu().numpy()
                except RuntimeError as error:
                    if not self._is_out_of_memory(error) or last - first == 1:
                        raise
                    self.run = (last - first) // 2
                else:
                    first = last
                    continue
                # After the error is gone, which holds the tensors of the run.
                self._torch.cuda.empty_cache()
        return found

    def _embed_part(self, packed: _Packed, first: int, last: int) -> torch.Tensor:
        starts = packed.starts[first:last]
        begin, end = int(starts[0]), int(starts[-1]) + FRAMES  # frames of the run
        samples = packed.samples[begin * HOP : (end - 1) * HOP + FRAME]
        mels = self._mels(samples.to(self._device, non_blocking=True))
        places = self._torch.from_numpy(starts - begin).to(self._device)
        return self._embed(mels[self._frames + places])

    def _mels(self, samples: torch.Tensor) -> torch.Tensor:
        """`mel.mel_frames` on the device: float32[n, 40]."""
        frames = samples.unfold(0, FRAME, HOP)
        mels: torch.Tensor = self._torch.empty((len(frames), MELS), device=self._device)
        for first in range(0, len(frames), _FRAMES_TOGETHER):
            some = frames[first : first + _FRAMES_TOGETHER]
            second = some[:, _HALF + 1 :].flip(1)
            odd = some[:, 1:_HALF] - second
            even = some[:, 1 : _HALF + 1].clone()
            even[:, :-1] += second
            power = (even @ self._cosines).square_() + (odd @ self._sines).square_()
            self._torch.matmul(power, self._filters, out=mels[first : first + len(some)])
        return mels

    def _embed(self, mels: torch.Tensor) -> torch.Tensor:
        """float32[160, n, 40] to float32[n, 256]."""
        if self._dtype == self._torch.float16:
            mels = mels.clamp(max=_LARGEST_FLOAT16)  # a click of 12 times full scale
        count = mels.shape[1]
        states = self._torch.zeros(
            (FRAMES, -(-count // _PARTIALS) * _PARTIALS, _INPUTS), dtype=self._dtype, device=self._device
        )
        states[:, :count, :MELS] = mels
        for lstm in self._layers:
            states, (last, _) = lstm(states)
        weight, bias = self._linear
        outputs: torch.Tensor = (last[0, :count].float() @ weight + bias).relu_()
        lengths: torch.Tensor = outputs.norm(dim=1, keepdim=True)
        return outputs / lengths.clamp_min_(_TINY)  # zeros stay zeros, as in `network.py`

    def _has_tensor_cores(self) -> bool:
        if self._device.type != "cuda":
            return False
        capability: tuple[int, int] = self._torch.cuda.get_device_capability(self._device)
        return capability >= _TENSOR_CORES

    def _is_out_of_memory(self, error: RuntimeError) -> bool:
        # Libraries of CUDA report it in their own way: CUDNN_STATUS_ALLOC_FAILED.
        return isinstance(error, self._torch.cuda.OutOfMemoryError) or "ALLOC_FAILED" in str(error)


class _Packed(NamedTuple):
    """Pieces of speech, one after the other, and the first mel frame of each partial in them.

    samples: float32[160 m]. starts: int64[n], ascending.
    """

    samples: torch.Tensor
    starts: NDArray[np.int64]


def _split(embeddings: NDArray[np.float32], counts: list[int]) -> list[NDArray[np.float32]]:
    return np.split(embeddings, np.cumsum(counts)[:-1])


def import_torch() -> Any:
    """The module torch, whose import takes seconds. Raises `EncoderError`."""
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: one of its libraries is missing
        raise EncoderError(
            f"torch cannot be imported ({error}): `pip install 'opusagent-voiceprint[cuda]'` installs it."
        ) from error
    return torch


@contextmanager
def _torch_errors(what: str) -> Iterator[None]:
    """Raise `EncoderError` in place of torch's errors."""
    try:
        yield
    # AssertionError: a torch without CUDA.
    except (RuntimeError, MemoryError, AssertionError) as error:
        first_line = str(error).partition("\n")[0]
        hint = ""
        # The second: CUDA was asked for its devices before the fork, and not used.
        if "forked subprocess" in first_line or "initialization error" in first_line:
            hint = (
                " CUDA cannot be used in a process that was forked after its use: make the recognizer in the "
                "worker, or start processes by spawn, see docs/forks.md."
            )
        raise EncoderError(f"torch {what} ({first_line}).{hint}") from error
