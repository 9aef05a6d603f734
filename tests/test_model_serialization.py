"""No serialization of a model sends embeddings, unless it is asked to; processes exchange them by pickle."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel, RootModel, TypeAdapter
from pydantic_core import to_json, to_jsonable_python

from voiceprint import Caller, Match, MemoryStorage, StreamResult, Voiceprint

VOICEPRINT = Voiceprint(
    "a", np.arange(1.0, 257.0), {"plan": "gold"}, "2026-01-01", id=1, revision=2, augmented=np.ones(256)
)
CALLER = Caller(caller_id="a", metadata={"plan": "gold"}, voiceprints=(VOICEPRINT,))
ASKING = {"include_embeddings": True}


class Answer(BaseModel):
    """A model of the user's own, as a web framework takes it for an answer."""

    caller: Caller
    others: list[Caller] = []
    anything: Any = None


class Extended(Caller):
    shop: str = "main"


@dataclass
class Plain:
    prints: dict[str, Voiceprint]


ANSWER = Answer(caller=CALLER, others=[CALLER], anything={"print": VOICEPRINT})
# What a web framework does with what a handler returns.
WAYS: dict[str, Callable[..., Any]] = {
    "model_dump": lambda **how: CALLER.model_dump(**how),
    "of a voiceprint": lambda **how: VOICEPRINT.model_dump(**how),
    "model_dump in the mode of JSON": lambda **how: CALLER.model_dump(mode="json", by_alias=True, **how),
    "model_dump for a round trip": lambda **how: CALLER.model_dump(round_trip=True, **how),
    "model_dump_json": lambda **how: CALLER.model_dump_json(**how),
    "a model of the user's": lambda **how: ANSWER.model_dump(**how),
    "a model of the user's as JSON": lambda **how: ANSWER.model_dump_json(**how),
    "a subclass": lambda **how: Extended(**dict(CALLER)).model_dump(serialize_as_any=True, **how),
    "a root model": lambda **how: RootModel[list[Caller]]([CALLER]).model_dump_json(**how),
    "an adapter": lambda **how: TypeAdapter(Caller).dump_python(CALLER, **how),
    "an adapter of a list as JSON": lambda **how: TypeAdapter(list[Caller]).dump_json([CALLER], **how),
    "an adapter of anything": lambda **how: TypeAdapter(Any).dump_json({"a": CALLER}, **how),
    "an adapter of a dataclass": lambda **how: TypeAdapter(Plain).dump_python(
        Plain({"a": VOICEPRINT}), **how
    ),
    "to_jsonable_python": lambda **how: to_jsonable_python([CALLER], **how),
    "to_json": lambda **how: to_json({"a": VOICEPRINT}, **how),
}


@pytest.mark.parametrize("way", WAYS)
def test_embeddings_are_serialized_only_on_request(way: str) -> None:
    shown = str(WAYS[way]())
    assert "created_at" in shown
    for name in ("embedding", "augmented"):
        assert name not in shown
    assert f"{VOICEPRINT.embedding[200]:.4f}" not in shown
    asked = str(WAYS[way](context=ASKING))
    assert f"{VOICEPRINT.embedding[200]:.4f}" in asked
    assert "augmented" in asked


def test_the_methods_take_the_request_as_an_argument_beside_a_context_of_the_users() -> None:
    assert CALLER.model_dump(include_embeddings=True) == CALLER.model_dump(context=ASKING)
    assert CALLER.model_dump_json(include_embeddings=True, context={"mine": 1}) == (
        CALLER.model_dump_json(context=ASKING)
    )
    twin = Caller.model_validate_json(CALLER.model_dump_json(include_embeddings=True))
    assert twin == CALLER
    assert twin.voiceprints[0].augmented.tobytes() == VOICEPRINT.augmented.tobytes()


@pytest.mark.parametrize("context", [None, {}, {"include_embeddings": 1}, "include_embeddings", 7])
def test_only_a_clear_request_counts(context: Any) -> None:
    assert "embedding" not in CALLER.model_dump_json(context=context)


def test_other_options_of_pydantic_still_count() -> None:
    assert VOICEPRINT.model_dump(include={"id", "caller_id"}) == {"caller_id": "a", "id": 1}
    assert "last_seen" not in VOICEPRINT.model_dump(exclude_none=True)
    assert json.loads(CALLER.model_dump_json(exclude={"voiceprints"}, indent=1)) == {
        "caller_id": "a", "metadata": {"plan": "gold"}, "created_at": None, "last_seen": None,
        "consent": None, "opt_out": None, "groups": [],
    }  # fmt: skip


def test_pickle_and_copies_keep_embeddings() -> None:
    for twin in (
        pickle.loads(pickle.dumps(CALLER)),
        copy.copy(CALLER),
        copy.deepcopy(CALLER),
        CALLER.model_copy(deep=True),
    ):
        assert twin == CALLER
        assert twin.voiceprints[0].embedding.tobytes() == VOICEPRINT.embedding.tobytes()
        assert twin.voiceprints[0].augmented.tobytes() == VOICEPRINT.augmented.tobytes()


def test_callers_that_a_store_gives_are_serialized_alike() -> None:
    with MemoryStorage() as storage:  # which makes them past the constructor
        storage.save(VOICEPRINT)
        shown = storage.get("a").model_dump_json()
    assert "embedding" not in shown
    assert "gold" in shown


def test_answers_hold_no_embeddings() -> None:
    match = Match(caller_id="a", similarity=0.9, voiceprint_id=1, accepted=True)
    assert "embedding" not in StreamResult(matches=(match,)).model_dump_json()


@pytest.mark.parametrize("model", [Voiceprint, Caller, Answer])
def test_the_json_schema_of_the_models_is_what_is_taken_and_what_is_given(model: type[BaseModel]) -> None:
    taken = model.model_json_schema(mode="validation")
    given = model.model_json_schema(mode="serialization")
    schemas = [{**schema.get("$defs", {}), "": schema} for schema in (taken, given)]
    of_print = [one.get("Voiceprint", one[""])["properties"] for one in schemas]
    assert of_print[0]["embedding"]["items"] == {"type": "number"}
    assert {"caller_id", "id", "created_at", "encoder", "metadata"} <= of_print[1].keys()
    assert not {"embedding", "augmented"} & of_print[1].keys()
    assert "embedding" not in str(schemas[1].get("Voiceprint", schemas[1][""])["required"])
