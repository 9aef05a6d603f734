"""The tree of errors: what catches what, and that an error survives the way between processes."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest

import voiceprint
from voiceprint import AudioQuality, AudioQualityError, SeveralVoicesError, VoiceprintError, errors

CLASSES = {
    name: member
    for name, member in vars(errors).items()
    if inspect.isclass(member) and issubclass(member, BaseException)
}


def documented_tree() -> dict[str, tuple[str, ...]]:
    """Name of each class to the names of its bases, as the docstring of the module draws them."""
    tree: dict[str, tuple[str, ...]] = {}
    above: list[str] = []  # the class last met at each depth
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^    ([ │├└─]*)(\w*Error)\b(?:\s+\((\w+)\))?", line)
        if found:
            depth = len(found[1]) // 4
            above[depth:] = [found[2]]
            ours = above[depth - 1] if depth else "Exception"
            tree[found[2]] = (ours, found[3]) if found[3] else (ours,)
    return tree


def test_the_classes_are_those_of_the_documented_tree() -> None:
    tree = documented_tree()
    assert tree["StorageCorruptError"] == ("StorageError",)
    assert tree["InvalidAudioError"] == ("VoiceprintError", "ValueError")
    assert {
        name: tuple(base.__name__ for base in member.__bases__) for name, member in CLASSES.items()
    } == tree


@pytest.mark.parametrize("name", CLASSES)
def test_every_error_is_public_documented_and_caught_by_the_root(name: str) -> None:
    assert getattr(voiceprint, name) is CLASSES[name]
    assert issubclass(CLASSES[name], VoiceprintError)
    assert CLASSES[name].__doc__


@pytest.mark.parametrize("name", sorted(CLASSES.keys() - {"AudioQualityError", "SeveralVoicesError"}))
def test_an_error_shows_its_message_and_is_pickled_with_it(name: str) -> None:
    error = CLASSES[name]("the caller 'a' is unknown")
    twin = pickle.loads(pickle.dumps(error))
    assert type(twin) is CLASSES[name]
    assert str(error) == str(twin) == "the caller 'a' is unknown"


@pytest.mark.parametrize("kind", [AudioQualityError, SeveralVoicesError])
def test_an_audio_quality_error_is_pickled_with_what_was_measured(kind: type[AudioQualityError]) -> None:
    quality = AudioQuality(
        score=0.1,
        duration_s=2,
        net_speech_s=1,
        snr_db=3,
        clipping=0,
        level_dbfs=-70,
        bandwidth_hz=4_000,
        feedback=("too_quiet", "noisy"),
    )
    error = kind("too poor", quality)
    twin = pickle.loads(pickle.dumps(error))
    assert type(twin) is kind
    assert (str(twin), twin.quality) == ("too poor", quality)
    assert twin.quality.feedback == ("too_quiet", "noisy")
