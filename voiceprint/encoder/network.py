"""Resemblyzer's network, built from its weights and run by ONNX Runtime.

Three LSTM layers of 256 process the 160 mel frames of a partial. The last hidden state goes through a linear
layer and a ReLU, and is scaled to length 1: the partial's embedding (Wan et al., arXiv:1710.10467).
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from voiceprint.encoder.onnx_format import model, node
from voiceprint.encoder.partials import FRAMES
from voiceprint.encoder.runtime import Session
from voiceprint.encoder.weights import HIDDEN, LAYERS, MELS, Weights, read_weights, weights_file


class Network:
    """The loaded network. `embed` is thread-safe, and works in the calling thread."""

    def __init__(self, weights: Weights, *, int8: bool = False) -> None:
        self._session = Session(_graph(weights, int8=int8))

    @classmethod
    def load(cls, *, int8: bool = False) -> Network:
        """Load the weights of the installed `resemblyzer`; int8: use 8-bit products, see `_INT8_LAYERS`."""
        return cls(read_weights(weights_file()), int8=int8)

    def embed(self, mels: NDArray[np.float32]) -> NDArray[np.float32]:
        """The embeddings of partials, float32[n, 256] of length 1, from float32[n, 160, 40].

        Fastest for 3 to 6 at a time: fewer load the weights too often, and the states of more do not fit the
        cache. Raises `EncoderError`.
        """
        return self._session.run(mels=np.ascontiguousarray(mels.transpose(1, 0, 2)))


_MICROSOFT: Final = "com.microsoft"  # ONNX Runtime's own operators
_OPERATORS: Final = {"": 14, _MICROSOFT: 1}

# The part with 8-bit products. Not the first layer: its input, mel power, has too wide a range, and in 8 bits
# leaves a cosine of 0.5; the inputs of the others, LSTM states, lie from -1 to 1. Nor the last fifth of the
# frames, though that costs a fifth of the gain: the LSTM mostly forgets earlier errors there, which nearly
# halves the greatest 1 - cosine.
_INT8_LAYERS: Final = frozenset({1, 2})
_INT8_FRAMES: Final = 128


def _graph(weights: Weights, *, int8: bool) -> bytes:
    """The network as an ONNX model: mels float32[160, n, 40] to embeddings float32[n, 256]."""
    network = _Graph(weights)
    inputs = [("mels", False)]  # spans of frames, in order: name of the tensor, and whether to use 8 bits
    for layer in range(LAYERS):
        if int8 and layer == min(_INT8_LAYERS):
            ((frames, _),) = inputs
            inputs = [*zip(network.split(frames, _INT8_FRAMES), (True, False), strict=True)]
        state = _Outputs("", "", "")
        outputs = []
        for frames, in_int8 in inputs:
            state = network.layer(layer, frames, state, int8=in_int8)
            outputs.append((state.states, in_int8))
        inputs = outputs
    return network.model(state.last)


class _Outputs(NamedTuple):
    """Names of a layer's outputs: its states at all frames, and its last hidden and cell state."""

    states: str
    last: str
    cell: str


class _Graph:
    """Nodes and constants of the network, layer by layer."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._nodes: list[bytes] = []
        self._constants: dict[str, NDArray[Any]] = {
            "directions": np.array([1], dtype=np.int64),
            "layers": np.array([0], dtype=np.int64),
            "linear.weight": np.ascontiguousarray(weights["linear.weight"].T),
            "linear.bias": weights["linear.bias"],
        }

    def split(self, read: str, frames: int) -> tuple[str, str]:
        """Split a tensor into its first frames and the rest; return the names of both."""
        self._constants["spans"] = np.array([frames, FRAMES - frames], dtype=np.int64)
        names = f"{read} early", f"{read} late"
        self._nodes.append(node("Split", [read, "spans"], names, axis=0))
        return names

    def layer(self, layer: int, read: str, begin: _Outputs, *, int8: bool) -> _Outputs:
        """Add an LSTM over frames that begins with the last state of another."""
        names, scales = [], []
        for kind in ("ih", "hh"):
            name = f"weight_{kind}_l{layer}"
            product = _gates(self._weights[f"lstm.{name}"])
            if int8:
                name += " int8"
                self._constants |= _in_int8(name, product)
                scales += [f"{name} scale", f"{name} zero"]
            else:
                self._constants[name] = product[None]
            names.append(name)
        names.append(f"bias_l{layer}")
        bias = [_gates(self._weights[f"lstm.bias_{kind}_l{layer}"]) for kind in ("ih", "hh")]
        self._constants[names[-1]] = np.concatenate(bias)[None]
        last = layer == LAYERS - 1
        outputs = _Outputs("" if last else f"{read} states", f"{read} last", f"{read} cell")
        inputs = [read, *names]
        if int8 or begin.last:
            inputs += ["", begin.last, begin.cell]  # without the lengths of sequences
        if int8:
            inputs += ["", *scales]  # and without peepholes
        operator, domain = ("DynamicQuantizeLSTM", _MICROSOFT) if int8 else ("LSTM", "")
        self._nodes.append(node(operator, inputs, outputs, domain=domain, hidden_size=HIDDEN))
        if last:
            return outputs
        read = f"{outputs.states} read"
        self._nodes.append(node("Squeeze", [outputs.states, "directions"], [read]))
        return outputs._replace(states=read)

    def model(self, last: str) -> bytes:
        """The model. last: name of the last layer's last hidden state."""
        self._nodes += [
            node("Squeeze", [last, "layers"], ["state"]),
            node("MatMul", ["state", "linear.weight"], ["product"]),
            node("Add", ["product", "linear.bias"], ["sum"]),
            node("Relu", ["sum"], ["positive"]),
            node("LpNormalization", ["positive"], ["embeddings"], axis=1, p=2),
        ]
        inputs: dict[str, list[int | str]] = {"mels": [FRAMES, "n", MELS]}
        outputs: dict[str, list[int | str]] = {"embeddings": ["n", HIDDEN]}
        return model(self._nodes, self._constants, inputs, outputs, _OPERATORS)


def _in_int8(name: str, product: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """Weights float32[1024, k] as DynamicQuantizeLSTM takes them: int8[1, k, 1024], scales and zeros.

    Each row has its own scale: with a common one, the small rows lose most of their bits.
    """
    scale = np.maximum(np.abs(product).max(axis=1), np.finfo(np.float32).tiny) / np.float32(127)
    rounded = np.rint(product / scale[:, None]).astype(np.int8)
    return {
        name: np.ascontiguousarray(rounded.T)[None],
        f"{name} scale": scale[None],
        f"{name} zero": np.zeros((1, len(scale)), dtype=np.int8),
    }


def _gates(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Reorder the rows of the four gates from torch's order to that of ONNX (in, out, forget, cell)."""
    into, forget, cell, out = np.split(rows, 4)
    return np.concatenate([into, out, forget, cell])
