"""Tiny real speaker models as ONNX files, with the metadata of the published ones.

The network is a fixed layer that compares neighboring mel bands, statistics over time, and a seeded random
projection. The statistics carry enough of a voice to tell the sample callers apart.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from voices import load_voices

from voiceprint.encoder import OnnxFileEncoder
from voiceprint.encoder.model_file import open_model
from voiceprint.encoder.onnx_format import model, node

MELS: Final = 80
Framework = Literal["wespeaker", "3d-speaker", "nemo"]

TINY: Final[dict[str, tuple[str, int, Framework]]] = {
    "tiny-192": ("sherpa", 192, "wespeaker"),
    "tiny-512": ("onnx", 512, "3d-speaker"),
}
"""The models of `pytest --encoder`: program, dimension and framework."""

TINY_THRESHOLD: Final = "0.8"
"""Cosine between those of the sample callers with themselves, 0.81 and more, and with each other, to 0.85."""

_GENERAL: Final = {"language": "English", "sample_rate": "16000"}
METADATA: Final[dict[Framework, dict[str, str]]] = {
    "wespeaker": {"framework": "wespeaker", "normalize_samples": "0", **_GENERAL},
    "3d-speaker": {
        "framework": "3d-speaker",
        "normalize_samples": "1",
        "feature_normalize_type": "global-mean",
        **_GENERAL,
    },
    "nemo": {
        "framework": "nemo",
        "feat_dim": str(MELS),
        "window_size_ms": "25",
        "window_stride_ms": "10",
        "window_type": "hann",
        "feature_normalize_type": "per_feature",
        **_GENERAL,
    },
}


def tiny_model(
    dimension: int,
    framework: Framework = "wespeaker",
    seed: int = 0,
    changed: Mapping[str, str | None] | None = None,
    *,
    raw: bool = False,
) -> bytes:
    """An ONNX model of a framework. changed: properties of the metadata; None removes one.

    raw: the embedding is the statistics themselves.
    """
    metadata = {**METADATA[framework], "output_dim": str(dimension), **(changed or {})}
    is_nemo = framework == "nemo"
    # [n, bands, frames] of NeMo's is turned into [n, frames, bands].
    head = [node("MatMul", ["x", "bands"], ["y"])]
    if is_nemo:
        head = [node("MatMul", ["bands_transposed", "x"], ["turned"])]
    time = "time_of_nemo" if is_nemo else "time"
    y = "turned" if is_nemo else "y"
    nodes = [
        *head,
        node("ReduceMean", [y, time], ["mean"], keepdims=1),
        node("Sub", [y, "mean"], ["centered"]),
        node("Mul", ["centered", "centered"], ["square"]),
        node("ReduceMean", ["square", time], ["variance"], keepdims=0),
        node("Add", ["variance", "least"], ["floored"]),
        node("Log", ["floored"], ["spread"]),
        node("ReduceMean", [y, time], ["flat"], keepdims=0),
        node("Concat", ["flat", "spread"], ["raw"], axis=1),
        node("Sub", ["raw", "usual"], ["statistics"]),
        node("MatMul", ["statistics", "projection"], ["embs"]),
    ]
    outputs: dict[str, list[int | str]] = {"embs": ["n", dimension]}
    if is_nemo:
        nodes.append(node("Identity", ["statistics"], ["logits"]))
        outputs = {"logits": ["n", 2 * BANDS], **outputs}
    bands = _bands()
    constants = {
        "bands": bands,
        "bands_transposed": np.ascontiguousarray(bands.T),
        "time": np.array([1], dtype=np.int64),
        "time_of_nemo": np.array([2], dtype=np.int64),
        "least": np.array([1e-3], dtype=np.float32),
        "usual": np.zeros(2 * BANDS, dtype=np.float32) if raw else _usual(framework),
        "projection": np.eye(2 * BANDS, dtype=np.float32) if raw else _projection(dimension, seed),
    }
    shape: list[int | str] = ["n", MELS, "frames"] if is_nemo else ["n", "frames", MELS]
    used = {name for each in nodes for name in constants if name.encode() in each}
    return model(
        nodes,
        {name: value for name, value in constants.items() if name in used},
        {"x": shape},
        outputs,
        {"": 18},
        lengths=["length"] if is_nemo else [],
        metadata={name: value for name, value in metadata.items() if value is not None},
    )


BANDS: Final = MELS - 2


@lru_cache(maxsize=3)
def _usual(framework: Framework) -> Any:
    """float32[2 * BANDS]: the mean statistics of the sample callers, without which all voices are alike."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "raw.onnx")
        path.write_bytes(tiny_model(2 * BANDS, framework, raw=True))
        network = OnnxFileEncoder._load(open_model(path))
        found = [network(utterances[0]) for utterances in load_voices().values()]
    return np.mean(found, axis=0).astype(np.float32)


def _bands() -> Any:
    """float32[MELS, BANDS]: the second difference, without the level and tilt that all voices share."""
    matrix = np.zeros((MELS, BANDS), dtype=np.float32)
    for band in range(BANDS):
        matrix[band : band + 3, band] = -0.5, 1.0, -0.5
    return matrix


def _projection(dimension: int, seed: int) -> Any:
    drawn = np.random.default_rng(seed).standard_normal((2 * BANDS, dimension))
    return (drawn / np.sqrt(dimension)).astype(np.float32)


def write_tiny_model(
    path: Path,
    dimension: int,
    framework: Framework = "wespeaker",
    seed: int = 0,
    changed: Mapping[str, str | None] | None = None,
) -> Path:
    """Write a `tiny_model`, and return its path."""
    path.write_bytes(tiny_model(dimension, framework, seed, changed))
    return path
