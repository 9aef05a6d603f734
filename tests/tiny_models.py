"""Tiny real speaker models as ONNX files, with the metadata of the published ones.

The network is a fixed layer that compares neighboring mel bands, statistics over time, and a seeded random
projection. The statistics carry enough of a voice to tell the sample callers apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from voiceprint.encoder.onnx_format import model, node

MELS: Final = 80
Framework = Literal["wespeaker", "3d-speaker", "nemo"]

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
) -> bytes:
    """An ONNX model of a framework. changed: properties of the metadata; None removes one."""
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
        node("Concat", ["flat", "spread"], ["statistics"], axis=1),
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
        "projection": _projection(dimension, seed),
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
