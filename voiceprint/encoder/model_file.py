"""Files of speaker models: ONNX with the metadata by which sherpa-onnx runs the models of several toolkits.

WeSpeaker, 3D-Speaker and NeMo publish such models. The metadata names the toolkit and the parameters of its
front end, so that no model needs code of its own.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Final, Literal, NamedTuple, cast, get_args

from voiceprint._files import open_regular
from voiceprint.encoder.onnx_format import ModelFacts, model_facts, with_exact_pools
from voiceprint.errors import EncoderError

Framework = Literal["wespeaker", "3d-speaker", "nemo"]
"""The toolkits whose models can be used."""

_MAX_BYTES: Final = 2**31 - 1  # of a protocol buffer, the format of the file
_DIGITS: Final = 16
"""Hex digits of the digest in the name of a space. Two models have equal digits by chance in one of 2^64."""

_NORMALIZATIONS: Final[dict[Framework, tuple[str, ...]]] = {
    "wespeaker": ("", "global-mean"),
    "3d-speaker": ("", "global-mean"),
    "nemo": ("", "per_feature"),
}
_GENERAL_BANDS: Final = 80  # of a front end without `feat_dim`
_BANDS: Final = (
    8,
    128,
)  # of published models, 80: with 128, each still holds a frequency of the shortest window
_WINDOW_MS: Final = (20, 100)  # 25
_SHIFT_MS: Final = (1, 100)  # 10
_WINDOWS: Final = ("povey", "hann", "hanning", "hamming", "rectangular", "blackman", "sine")


class FrontEnd(NamedTuple):
    """The features of a model.

    normalize_samples: the samples are -1 to 1; else -32768 to 32767. normalization: of each band over time:
    "" for none, "global-mean" subtracts the mean, "per_feature" also divides by the deviation.
    window_ms, shift_ms: length and step of the frames. window: name of their shape.
    """

    framework: Framework
    sample_rate: int
    bands: int
    normalize_samples: bool
    normalization: str
    window_ms: int = 25
    shift_ms: int = 10
    window: str = "povey"


class ModelFile(NamedTuple):
    """A file that can be used as a speaker model.

    path: absolute. sha256: its digest, 64 hex digits. dimension: length of its embeddings.
    """

    path: Path
    sha256: str
    dimension: int
    front_end: FrontEnd

    @property
    def space(self) -> str:
        """Name of the embedding space: toolkit, dimension and digest, and so of the content alone.

        A file that is moved or renamed gives the same space; any other model gives another.
        """
        return f"{self.front_end.framework}-{self.dimension}-{self.sha256[:_DIGITS]}"

    def read(self) -> bytes:
        """The content to load, with exact pools. Raises `EncoderError` where the file was replaced since."""
        content = _read(self.path)
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise EncoderError(
                f"{self.path} was replaced by another file while this process used it: start the process "
                "anew, and put every model into a file of its own."
            )
        try:
            return with_exact_pools(content)
        except ValueError as error:  # a damaged node
            raise _no_model(self.path, error) from error


def open_model(path: str | os.PathLike[str], sha256: str | None = None) -> ModelFile:
    """Check the file of a model. sha256: the digest that the file must have; None for any.

    Raises `EncoderError` for a file that cannot be read, is no such model, or has another digest.
    """
    place = Path(absolute_path(path))
    content = _read(place)
    digest = hashlib.sha256(content).hexdigest()
    if sha256 is not None and digest != sha256.lower():
        raise EncoderError(
            f"{place} has the SHA-256 digest {digest}, and VOICE_ENCODER_SHA256 is {sha256}: give the file "
            "that was pinned, or pin this one."
        )
    try:
        facts = model_facts(content)
    except ValueError as error:  # also of text that is not UTF-8
        raise _no_model(place, error) from error
    if not facts.is_whole:
        raise EncoderError(
            f"{place} has weights in another file, which its digest does not cover: save it as one file."
        )
    return _Metadata(place, facts).model_file(digest)


def absolute_path(path: str | os.PathLike[str]) -> str:
    """The absolute path of a file, with "~" and links resolved."""
    return os.path.realpath(os.path.expanduser(path))  # noqa: PTH111 - which raises RuntimeError


def _no_model(path: Path, error: ValueError) -> EncoderError:
    return EncoderError(f"{path} is no ONNX model ({error}): give the file of a speaker model.")


def _read(path: Path) -> bytes:
    try:
        with open_regular(path) as file:
            content = file.read(_MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte
        why = str(getattr(error, "strerror", None) or error).removesuffix(".")
        raise EncoderError(
            f"The encoder's model {path} cannot be read: {why}. No model is shipped or downloaded: "
            "docs/encoders.md says where each comes from."
        ) from error
    if len(content) > _MAX_BYTES:
        raise EncoderError(f"{path} is larger than 2 GB, the most that an ONNX model has.")
    return content


class _Metadata:
    """The metadata of a model, checked. Each is required, and named in the error where it is missing or odd.

    sherpa-onnx would end the process for any of these faults.
    """

    def __init__(self, path: Path, facts: ModelFacts) -> None:
        self._path = path
        self._facts = facts

    def model_file(self, digest: str) -> ModelFile:
        framework = cast(Framework, self._one_of("framework", get_args(Framework)))
        self._text("language")
        dimension, rate = self._whole("output_dim"), self._whole("sample_rate")
        if not 8_000 <= rate <= 48_000:
            raise self._odd("sample_rate", "8000 to 48000")
        normalization = self._one_of("feature_normalize_type", _NORMALIZATIONS[framework], "")
        if framework != "nemo":
            normalize = self._one_of("normalize_samples", ("0", "1")) == "1"
            front_end = FrontEnd(framework, rate, _GENERAL_BANDS, normalize, normalization)
        else:
            # Its embeddings are the second output, after the scores of the speakers in training.
            if self._facts.outputs != 2:
                raise EncoderError(
                    f"{self._path} has {self._facts.outputs} outputs; a model of NeMo has two, logits and "
                    "embeddings."
                )
            # kaldi-native-fbank refuses bands without a frequency; sherpa-onnx would end the process.
            bands = self._whole("feat_dim", *_BANDS)
            window, shift = (
                self._whole("window_size_ms", *_WINDOW_MS),
                self._whole("window_stride_ms", *_SHIFT_MS),
            )
            shape = self._one_of("window_type", _WINDOWS, "povey")
            front_end = FrontEnd(framework, rate, bands, True, normalization, window, shift, shape)
        return ModelFile(self._path, digest, dimension, front_end)

    def _text(self, name: str, default: str | None = None) -> str:
        value = self._facts.metadata.get(name) or default
        if value is None:
            raise EncoderError(
                f"{self._path} is an ONNX model without the metadata {name!r}, by which sherpa-onnx runs "
                "speaker models: take the file that sherpa-onnx publishes (docs/encoders.md)."
            )
        return value

    def _one_of(self, name: str, allowed: tuple[str, ...], default: str | None = None) -> str:
        value = self._text(name, default)
        if value not in allowed:
            raise self._odd(name, " or ".join(repr(each) for each in allowed))
        return value

    def _whole(self, name: str, least: int = 1, most: int = 999_999) -> int:
        value = self._text(name)
        if not re.fullmatch(r"[1-9][0-9]{0,5}", value, re.ASCII) or not least <= int(value) <= most:
            raise self._odd(name, f"a whole number from {least} to {most}")
        return int(value)

    def _odd(self, name: str, allowed: str) -> EncoderError:
        value = self._facts.metadata.get(name, "")[:40]
        return EncoderError(f"{self._path} has the metadata {name!r} {value!r}, and {allowed} is supported.")
