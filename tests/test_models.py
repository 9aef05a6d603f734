"""The records and answers: what is taken, what is refused, and what is never shown."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import traceback
from datetime import date, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from voiceprint import Caller, Finding, InvalidArgumentError, Match, Verification, Voiceprint

DIRECTION = np.random.default_rng(5).standard_normal(256)
SECRET = 0.123456789  # a value that no text may show
MARKED = np.where(np.arange(256) == 7, SECRET, 0.5)


def test_positional_and_keyword_arguments_make_the_same_voiceprint() -> None:
    given_by_place = Voiceprint("a", DIRECTION, {"n": 1}, "2024-01-01T00:00:00Z", "2024-01-02T00:00:00Z")
    given_by_name = Voiceprint(
        caller_id="a",
        embedding=DIRECTION,
        metadata={"n": 1},
        created_at="2024-01-01T00:00:00Z",
        last_seen="2024-01-02T00:00:00Z",
    )
    assert given_by_place == given_by_name
    assert given_by_place.metadata == {"n": 1}
    assert Voiceprint("a", DIRECTION) == Voiceprint("a", DIRECTION, {}, None, None)


@pytest.mark.parametrize("kind", [list, tuple, np.float16, np.float32, np.float64, ">f4"])
def test_a_list_and_an_array_of_any_precision_become_the_same_embedding(kind: Any) -> None:
    numbers = kind(DIRECTION) if kind in (list, tuple) else DIRECTION.astype(kind)
    embedding = Voiceprint("a", numbers).embedding
    assert embedding.dtype == np.float32
    assert embedding.dtype.isnative
    np.testing.assert_allclose(embedding, DIRECTION / np.linalg.norm(DIRECTION), atol=1e-4)


@given(st.floats(1e-300, 1e300))
def test_only_the_direction_of_an_embedding_is_kept(length: float) -> None:
    embedding = Voiceprint("a", DIRECTION / np.linalg.norm(DIRECTION) * length).embedding
    np.testing.assert_allclose(embedding, Voiceprint("a", DIRECTION).embedding, atol=1e-5)
    assert abs(float(np.linalg.norm(embedding)) - 1) < 2e-5


def test_a_stored_embedding_keeps_every_bit() -> None:
    once = Voiceprint("a", DIRECTION).embedding
    assert Voiceprint("a", once).embedding.tobytes() == once.tobytes()


def test_the_embedding_is_a_read_only_copy() -> None:
    source = DIRECTION / np.linalg.norm(DIRECTION)
    voiceprint = Voiceprint("a", source.astype(np.float32))
    before = voiceprint.embedding.copy()
    source[:] = 0
    np.testing.assert_array_equal(voiceprint.embedding, before)
    with pytest.raises(ValueError, match="read-only"):
        voiceprint.embedding[0] = 1


@pytest.mark.parametrize(
    "duplicate",
    [
        copy.copy,
        copy.deepcopy,
        Voiceprint.model_copy,
        lambda voiceprint: voiceprint.model_copy(deep=True),
        lambda voiceprint: pickle.loads(pickle.dumps(voiceprint)),
        lambda voiceprint: copy.deepcopy(Caller(caller_id="a", voiceprints=(voiceprint,))).voiceprints[0],
        lambda voiceprint: Voiceprint.model_validate_json(
            voiceprint.model_dump_json(include_embeddings=True)
        ),
    ],
)
def test_the_embedding_of_a_copy_is_read_only_too(duplicate: Any) -> None:
    voiceprint = Voiceprint("a", DIRECTION, {"n": [1]})
    twin = duplicate(voiceprint)
    assert twin == voiceprint
    assert not twin.embedding.flags.writeable


def test_the_augmented_print_is_kept_as_the_embedding_is() -> None:
    voiceprint = Voiceprint("a", DIRECTION, augmented=list(MARKED))
    assert voiceprint.augmented is not None
    np.testing.assert_allclose(voiceprint.augmented, MARKED / np.linalg.norm(MARKED), atol=1e-6)
    assert voiceprint.augmented.dtype == np.float32
    assert not voiceprint.augmented.flags.writeable
    assert "augmented" not in repr(voiceprint)
    for twin in (
        copy.deepcopy(voiceprint),
        pickle.loads(pickle.dumps(voiceprint)),
        Voiceprint.model_validate_json(voiceprint.model_dump_json(include_embeddings=True)),
    ):
        assert twin == voiceprint
        assert not twin.augmented.flags.writeable
    assert voiceprint != Voiceprint("a", DIRECTION)
    assert Voiceprint("a", DIRECTION) != voiceprint
    assert voiceprint != Voiceprint("a", DIRECTION, augmented=DIRECTION)
    voiceprint.augmented = None
    assert voiceprint == Voiceprint("a", DIRECTION)
    with pytest.raises(InvalidArgumentError, match="8 values; the plain one has 9"):
        Voiceprint("a", DIRECTION[:9], encoder="other", augmented=DIRECTION[:8])


BAD: list[tuple[str, Any]] = [
    ("caller_id", ""),
    ("caller_id", None),
    ("caller_id", 7),
    ("caller_id", b"a"),
    ("caller_id", "x" * 513),
    ("caller_id", "\ud800"),
    ("embedding", None),
    ("embedding", []),
    ("embedding", "text"),
    ("embedding", [[1.0] * 256]),
    ("embedding", [1.0] * 255),
    ("embedding", [1.0] * 255 + ["x"]),
    ("embedding", {"a": 1.0}),
    ("embedding", ["1"] * 256),
    ("embedding", np.ones(256, dtype=bool)),
    ("embedding", np.ones(256, dtype=complex)),
    ("embedding", np.ones(256, dtype="m8[s]")),
    ("embedding", [10**400] * 256),
    ("embedding", np.zeros(256)),
    ("embedding", np.full(256, np.nan)),
    ("embedding", np.r_[np.ones(255), np.inf]),
    ("augmented", []),
    ("augmented", "text"),
    ("augmented", [1.0] * 255),
    ("augmented", np.zeros(256)),
    ("augmented", np.full(256, np.nan)),
    ("metadata", [("a", 1)]),
    ("metadata", "a"),
    ("metadata", {1: "a"}),
    ("metadata", {"a": (1, 2)}),
    ("metadata", {"a": {"b": float("nan")}}),
    ("metadata", {"a": 2**63}),
    ("metadata", {"a": np.float32(1)}),
    ("metadata", {"a": "x" * 1_000_001}),
    ("created_at", "yesterday"),
    ("created_at", 1_700_000_000),
    ("created_at", date(2024, 1, 1)),
    ("last_seen", ""),
    ("encoder", ""),
    ("encoder", None),
    ("encoder", "x" * 101),
    ("id", "seven"),
    ("revision", 1.5),
]


@pytest.mark.parametrize(("field", "value"), BAD, ids=lambda value: str(value)[:20])
def test_what_cannot_be_stored_is_refused_by_the_constructor_and_when_set(field: str, value: Any) -> None:
    with pytest.raises(InvalidArgumentError) as made:
        Voiceprint(**{"caller_id": "a", "embedding": DIRECTION, field: value})
    voiceprint = Voiceprint("a", DIRECTION)
    with pytest.raises(InvalidArgumentError) as assigned:
        setattr(voiceprint, field, value)
    assert voiceprint == Voiceprint("a", DIRECTION)
    for caught in (made, assigned):
        assert isinstance(caught.value, ValueError)
        assert not isinstance(caught.value, ValidationError)


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="bogus"):
        Voiceprint("a", DIRECTION, bogus=1)
    with pytest.raises(InvalidArgumentError, match="bogus"):
        Voiceprint("a", DIRECTION).bogus = 1  # type: ignore[attr-defined]


def test_another_space_may_have_another_dimension() -> None:
    assert Voiceprint("a", [3.0, 4.0], encoder="tiny").embedding.tolist() == pytest.approx([0.6, 0.8])


def test_no_text_and_no_log_shows_embedding_or_metadata(caplog: pytest.LogCaptureFixture) -> None:
    voiceprint = Voiceprint("a", MARKED, {"name": "Hunter"}, id=1)
    caller = Caller(caller_id="a", metadata={"name": "Hunter"}, voiceprints=(voiceprint,))
    match = Match(caller_id="a", similarity=0.5, metadata={"name": "Hunter"}, voiceprint_id=1, accepted=True)
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("test").debug("%s %r %s %r %r", voiceprint, [voiceprint], caller, caller, match)
    shown = caplog.text + f"{voiceprint} {caller} {match!s}"
    assert "'a'" in shown
    for secret in ("Hunter", "array", str(voiceprint.embedding[7])[:6], "0.1234"):
        assert secret not in shown


@pytest.mark.parametrize(
    "fields",
    [
        {"embedding": [*MARKED[:-1], float("nan")]},
        {"embedding": [*MARKED[:-1], "Hunter"]},
        {"embedding": MARKED[:100]},
        {"embedding": MARKED.reshape(2, 128)},
        {"metadata": {"Hunter": {SECRET}}},
        {"metadata": {"Hunter": [SECRET, float("nan")]}},
        {"metadata": {SECRET: "Hunter"}},
        {"caller_id": ""},
        {"id": "x"},
    ],
)
def test_no_error_shows_embedding_or_metadata_even_with_its_chain(fields: dict[str, Any]) -> None:
    fields = {"caller_id": "a", "embedding": MARKED, "metadata": {"name": "Hunter"}, **fields}
    with pytest.raises(InvalidArgumentError) as made:
        Voiceprint(**fields)
    with pytest.raises(ValidationError) as parsed:
        Voiceprint.model_validate(fields)
    for error in (made.value, parsed.value):
        shown = "".join(traceback.format_exception(error)) + repr(error)
        assert "Hunter" not in shown
        assert "0.1234" not in shown


def test_voiceprints_are_equal_when_all_fields_are() -> None:
    voiceprint = Voiceprint("a", DIRECTION, {"n": 1}, id=1)
    assert voiceprint == Voiceprint("a", DIRECTION * 3, {"n": 1}, id=1)
    for other in (
        Voiceprint("b", DIRECTION, {"n": 1}, id=1),
        Voiceprint("a", -DIRECTION, {"n": 1}, id=1),
        Voiceprint("a", DIRECTION, {"n": 2}, id=1),
        Voiceprint("a", DIRECTION, {"n": 1}, id=2),
        Voiceprint("a", [1.0], {"n": 1}, id=1, encoder="tiny"),
        "a",
        None,
    ):
        assert voiceprint != other


floats = st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(exclude_categories=["Cs"]))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | floats | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text("abc", max_size=3), json_values, max_size=4), st.datetimes())
def test_json_and_pickle_give_the_voiceprint_back_to_the_bit(metadata: Any, moment: datetime) -> None:
    voiceprint = Voiceprint("aé", DIRECTION, metadata, moment, id=3, revision=4)
    for twin in (
        Voiceprint.model_validate_json(voiceprint.model_dump_json(include_embeddings=True)),
        Voiceprint(**json.loads(json.dumps(voiceprint.model_dump(include_embeddings=True)))),
        pickle.loads(pickle.dumps(voiceprint)),
    ):
        assert twin == voiceprint
        assert twin.embedding.tobytes() == voiceprint.embedding.tobytes()


@pytest.mark.parametrize(
    ("given_time", "kept"),
    [
        (None, None),
        (datetime(2024, 5, 6, 7, 8, 9, 10), "2024-05-06T07:08:09.000010Z"),
        (datetime(2024, 5, 6, 7, tzinfo=timezone(timedelta(hours=2))), "2024-05-06T05:00:00.000000Z"),
        ("2024-05-06T07:08:09", "2024-05-06T07:08:09.000000Z"),
        ("2024-05-06T07:08:09.500Z", "2024-05-06T07:08:09.500000Z"),
        ("2024-05-06 07:08:09z", "2024-05-06T07:08:09.000000Z"),
        ("2024-05-06T07:08:09-03:30", "2024-05-06T10:38:09.000000Z"),
    ],
)
def test_times_are_kept_as_utc_with_a_z(given_time: object, kept: str | None) -> None:
    voiceprint = Voiceprint("a", DIRECTION, None, given_time, given_time)
    assert (voiceprint.created_at, voiceprint.last_seen) == (kept, kept)


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+05:00", "9999-12-31T23:59:59-01:00"])
def test_a_time_that_utc_has_no_year_for_is_refused_as_out_of_range(moment: str) -> None:
    for value in (moment, datetime.fromisoformat(moment)):
        with pytest.raises(InvalidArgumentError, match="out of range"):
            Voiceprint("a", DIRECTION, created_at=value)


@pytest.mark.parametrize(
    "answer",
    [
        Caller(caller_id="a"),
        Match(caller_id="a", similarity=0.5, voiceprint_id=1, accepted=True),
        Verification(caller_id="a", accepted=True, similarity=0.9, threshold=0.75),
        Finding(code="x", place="y", message="z"),
    ],
)
def test_answers_are_frozen_comparable_and_picklable(answer: Any) -> None:
    for field in type(answer).model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(answer, field, None)
    for twin in (pickle.loads(pickle.dumps(answer)), copy.deepcopy(answer)):
        assert twin == answer
    assert type(answer).model_validate_json(answer.model_dump_json()) == answer


def test_a_caller_makes_the_round_trip_through_json() -> None:
    caller = Caller(caller_id="a", metadata={"n": [1]}, voiceprints=(Voiceprint("a", DIRECTION, id=1),))
    assert Caller.model_validate_json(caller.model_dump_json(include_embeddings=True)) == caller
