"""The file of weights: read without torch, and never obeyed."""

from __future__ import annotations

import contextlib
import pickle
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from voiceprint import EncoderError
from voiceprint.encoder import weights
from voiceprint.encoder.weights import SHAPES, read_weights, weights_file

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
MACHINE = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}


@pytest.fixture(scope="module")
def content() -> bytes:
    """The file as it is installed."""
    return weights_file().read_bytes()


def write(path: Path, state: Any) -> Path:
    """A file in torch's legacy format, written by torch's own code."""
    torch.save({"model_state": state}, path, _use_new_zipfile_serialization=False)
    return path


def tensors(**changes: torch.Tensor) -> dict[str, torch.Tensor]:
    """A network of zeros, but for `changes`; the dots of the names are written as two underscores."""
    state = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
    return state | {name.replace("__", "."): value for name, value in changes.items()}


def test_the_weights_are_those_that_torch_reads() -> None:
    expected = torch.load(weights_file(), map_location="cpu", weights_only=True)["model_state"]
    read = read_weights(weights_file())
    assert set(read) == set(SHAPES)
    for name, values in read.items():
        assert values.dtype == np.float32
        np.testing.assert_array_equal(values, expected[name].numpy())


def test_a_file_that_torch_writes_today_is_read_too(tmp_path: Path) -> None:
    bias = torch.arange(256, dtype=torch.float32)
    read = read_weights(write(tmp_path / "own.pt", tensors(linear__bias=bias)))
    np.testing.assert_array_equal(read["linear.bias"], bias.numpy())


@pytest.mark.parametrize(
    ("state", "why"),
    [
        (tensors(linear__bias=torch.zeros(255)), "another shape"),
        (tensors(linear__weight=torch.empty_strided((256, 256), (1, 256))), "another shape"),
        (tensors(linear__bias=torch.full((256,), float("nan"))), "not finite"),
        (tensors(linear__bias=torch.full((256,), float("inf"))), "not finite"),
        (tensors(linear__bias=torch.zeros(256, dtype=torch.float64)), "other numbers|DoubleStorage"),
        (tensors(linear__bias="zeros"), "not a tensor"),
        ({}, "not a tensor"),
        ([], "model_state"),
    ],
)
def test_another_network_is_refused_with_the_reason(tmp_path: Path, state: Any, why: str) -> None:
    path = write(tmp_path / "other.pt", state)
    with pytest.raises(EncoderError, match=why) as caught:
        read_weights(path)
    assert str(path) in str(caught.value)
    assert "pip install" in str(caught.value)


class ObeyedError(Exception):
    """Somebody ran the pickle."""


def raise_obeyed() -> None:
    raise ObeyedError


def unpickle(path: Path, count: int) -> None:
    with path.open("rb") as file:
        for _ in range(count):
            pickle.load(file)


class Order:
    """An object that runs code in the process that unpickles it."""

    def __init__(self, how: Any, *arguments: Any) -> None:
        self.how, self.arguments = how, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.how, self.arguments


@pytest.mark.parametrize("place", ["magic", "machine", "content", "names"])
@pytest.mark.parametrize("order", [Order(raise_obeyed), Order(eval, "1/0"), Order(getattr, object, "x")])
def test_code_in_the_file_is_not_run(tmp_path: Path, place: str, order: Order) -> None:
    parts: dict[str, Any] = {"magic": MAGIC, "version": PROTOCOL, "machine": MACHINE}
    parts |= {"content": {"model_state": {}}, "names": []}
    parts[place] = order
    path = tmp_path / "bad.pt"
    path.write_bytes(b"".join(pickle.dumps(part, protocol=2) for part in parts.values()))
    with pytest.raises(
        (ObeyedError, ZeroDivisionError, AttributeError)
    ):  # the file is what it is meant to be
        unpickle(path, len(parts))
    with pytest.raises(EncoderError, match="damaged"):
        read_weights(path)


@pytest.mark.parametrize("seed", range(200))
def test_damage_is_an_error_of_ours_and_nothing_else(tmp_path: Path, content: bytes, seed: int) -> None:
    chance = random.Random(seed)
    damaged = bytearray(content[:6_700])
    for _ in range(chance.choice([1, 1, 2, 10])):
        damaged[chance.randrange(len(damaged))] = chance.randrange(256)
    if seed % 5 == 0:
        whole = bytes(damaged[: chance.randrange(len(damaged))])
    else:
        whole = bytes(damaged) + content[6_700:]
    path = tmp_path / "damaged.pt"
    path.write_bytes(whole)
    # The damage may hit what is not looked at, such as a device.
    with contextlib.suppress(EncoderError):
        read = read_weights(path)
        assert {name: values.shape for name, values in read.items()} == SHAPES


@pytest.mark.parametrize("length", [0, 1, 14, 100, 5_900, 6_670, 1_000_000, 5_000_000])
def test_a_file_that_ends_too_early_is_refused(tmp_path: Path, content: bytes, length: int) -> None:
    path = tmp_path / "short.pt"
    path.write_bytes(content[:length])
    with pytest.raises(EncoderError, match="damaged"):
        read_weights(path)


def test_a_storage_that_claims_to_be_huge_takes_no_memory(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "huge.pt"
    path.write_bytes(content[:6_667] + struct.pack("<q", 2**62) + content[6_675:])
    with pytest.raises(EncoderError, match="too early"):
        read_weights(path)


def test_keys_that_take_for_ever_to_hash_are_refused(tmp_path: Path) -> None:
    nested = b"".join(b"q" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(200))
    bomb = b"\x80\x02}K\x01" + nested + b"K\x01s."
    path = tmp_path / "bomb.pt"
    path.write_bytes(pickle.dumps(MAGIC, 2) + pickle.dumps(PROTOCOL, 2) + bomb)
    with pytest.raises(EncoderError, match="other keys"):
        read_weights(path)


def test_a_file_that_is_not_there_or_a_folder_is_an_error_with_its_path(tmp_path: Path) -> None:
    for path in (tmp_path / "none.pt", tmp_path):
        with pytest.raises(EncoderError, match="cannot be read") as caught:
            read_weights(path)
        assert isinstance(caught.value.__cause__, OSError)


def test_a_missing_package_is_an_error_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(EncoderError, match=r"not installed.*pip install"):
        weights_file()
