"""Resemblyzer's network, built from its weights and run by ONNX Runtime.

Three LSTM layers of 256 read the 160 mel frames of a partial; what the last one has in mind at the end goes
through a linear layer and a ReLU and is scaled to length 1: the partial's embedding (Wan et al.,
arXiv:1710.10467).
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from voiceprint.encoder.onnx_format import model, node
from voiceprint.encoder.partials import FRAMES
from voiceprint.encoder.runtime import Session
from voiceprint.encoder.weights import HIDDEN, LAYERS, MELS, Weights, read_weights, weights_file


class Network:
    """The network, loaded; `embed` may be called from many threads at once, each of which works by itself."""

    def __init__(self, weights: Weights, *, int8: bool = False) -> None:
        self._session = Session(_graph(weights, _INT8_LAYERS if int8 else frozenset()))

    @classmethod
    def load(cls, *, int8: bool = False) -> Network:
        """From the weights of the installed `resemblyzer`; int8: with products of 8 bits where they bear it."""
        return cls(read_weights(weights_file()), int8=int8)

    def embed(self, mels: NDArray[np.float32]) -> NDArray[np.float32]:
        """The embeddings of partials, float32[n, 256] of length 1, from float32[n, 160, 40].

        Best for 3 to 6 at a time: with fewer the weights are read too often, with more the states leave
        the cache. Raises `EncoderError`.
        """
        return self._session.run(mels=np.ascontiguousarray(mels.transpose(1, 0, 2)))


_OPERATORS: Final = {"": 14}
_MICROSOFT: Final = "com.microsoft"  # ONNX Runtime's own operators

# Not the first: it reads mel power, of an enormous range, and in 8 bits leaves a cosine of 0.5. The others
# read what an LSTM has in mind, from -1 to 1.
_INT8_LAYERS: Final = frozenset({1, 2})


def _graph(weights: Weights, int8_layers: frozenset[int]) -> bytes:
    """The network as an ONNX model: mels float32[160, n, 40] to embeddings float32[n, 256]."""
    constants: dict[str, NDArray[Any]] = {
        "directions": np.array([1], dtype=np.int64),
        "layers": np.array([0], dtype=np.int64),
        "linear.weight": np.ascontiguousarray(weights["linear.weight"].T),
        "linear.bias": weights["linear.bias"],
    }
    nodes = []
    read = "mels"
    for layer in range(LAYERS):
        names = [f"input {layer}", f"recurrent {layer}", f"bias {layer}"]
        products = [_gates(weights[f"lstm.weight_{kind}_l{layer}"]) for kind in ("ih", "hh")]
        bias = [_gates(weights[f"lstm.bias_{kind}_l{layer}"]) for kind in ("ih", "hh")]
        constants[names[2]] = np.concatenate(bias)[None]
        last = layer == LAYERS - 1
        outputs = ["", "last state"] if last else [f"states {layer}"]
        if layer in int8_layers:
            scales = []
            for name, product in zip(names, products, strict=False):
                quantized = {f"{name}{part}": value for part, value in _in_int8(product).items()}
                constants |= quantized
                scales += [*quantized][1:]
            inputs = [read, *names, "", "", "", "", *scales]  # without lengths, first states and peepholes
            nodes.append(
                node("DynamicQuantizeLSTM", inputs, outputs, domain=_MICROSOFT, hidden_size=HIDDEN)
            )
        else:
            constants |= {
                name: product[None] for name, product in zip(names, products, strict=False)
            }
            nodes.append(node("LSTM", [read, *names], outputs, hidden_size=HIDDEN))
        if not last:
            read = f"read {layer + 1}"
            nodes.append(node("Squeeze", [*outputs, "directions"], [read]))
    nodes += [
        node("Squeeze", ["last state", "layers"], ["state"]),
        node("MatMul", ["state", "linear.weight"], ["product"]),
        node("Add", ["product", "linear.bias"], ["sum"]),
        node("Relu", ["sum"], ["positive"]),
        node("LpNormalization", ["positive"], ["embeddings"], axis=1, p=2),
    ]
    operators = _OPERATORS | ({_MICROSOFT: 1} if int8_layers else {})
    return model(nodes, constants, {"mels": [FRAMES, "n", MELS]}, {"embeddings": ["n", HIDDEN]}, operators)


def _in_int8(product: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """Weights float32[1024, k] as DynamicQuantizeLSTM takes them: int8[1, k, 1024], scales and zeros.

    A scale for each row: with one for all, the small rows lose most of their bits.
    """
    scale = np.maximum(np.abs(product).max(axis=1), np.finfo(np.float32).tiny) / np.float32(127)
    rounded = np.rint(product / scale[:, None]).astype(np.int8)
    return {
        "": np.ascontiguousarray(rounded.T)[None],
        " scale": scale[None],
        " zero": np.zeros((1, len(scale)), dtype=np.int8),
    }


def _gates(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """The rows of the four gates in the order of ONNX (in, out, forget, cell), from that of torch."""
    into, forget, cell, out = np.split(rows, 4)
    return np.concatenate([into, out, forget, cell])
