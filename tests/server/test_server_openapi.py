"""The OpenAPI document: every operation is explained, with examples that its schemas accept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from voiceprint import MemoryStorage, OpusAgentVoiceRecognizer
from voiceprint.server import ServerSettings, Service, create_app

METHODS = {"get", "post", "put", "patch", "delete"}


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The document of a service."""
    state = str(tmp_path_factory.mktemp("openapi") / "state.db")
    service = Service({"default": OpusAgentVoiceRecognizer(MemoryStorage())}, ServerSettings(state=state))
    return create_app(service).openapi()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The operations by their method and path."""
    for path, methods in document["paths"].items():
        assert methods.keys() <= METHODS
        for method, operation in methods.items():
            yield f"{method} {path}", operation


def faults(document: dict[str, Any], schema: dict[str, Any], value: object) -> list[str]:
    """The faults of a value by a schema of the document, in the dialect of OpenAPI 3.1."""
    validator = jsonschema_rs.Draft202012Validator({**schema, "components": document["components"]})
    return [f"{'/'.join(map(str, one.instance_path))}: {one.message}" for one in validator.iter_errors(value)]


def test_the_document_is_openapi_and_names_how_to_authenticate(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    schemes = document["components"]["securitySchemes"].values()
    assert {scheme["type"] for scheme in schemes} == {"http", "apiKey"}
    is_open = {name for name, operation in operations(document) if not operation.get("security")}
    assert is_open == {"get /healthz", "get /readyz"}


def test_every_operation_is_explained(document: dict[str, Any]) -> None:
    ids, tags = [], {tag["name"] for tag in document["tags"]}
    for name, operation in operations(document):
        ids.append(operation["operationId"])
        assert operation["summary"], name
        assert operation["description"], name
        assert set(operation["tags"]) <= tags, name
        for parameter in operation.get("parameters", ()):
            described = parameter.get("description") or parameter["schema"].get("description")
            assert described, (name, parameter["name"])
    assert len(ids) == len(set(ids))


def test_every_operation_has_examples_that_its_schemas_accept(document: dict[str, Any]) -> None:
    found: list[str] = []
    for name, operation in operations(document):
        bodies = {"request": operation.get("requestBody", {}).get("content", {})}
        for status, response in operation["responses"].items():
            bodies[status] = response.get("content", {})
        assert any(status < "400" for status in bodies.keys() - {"request"}), name
        for place, content in bodies.items():
            for media, body in content.items():
                examples = [example["value"] for example in body.get("examples", {}).values()]
                where = f"{name} {place} {media}"
                for value in examples:
                    found += [f"{where}: {fault}" for fault in faults(document, body["schema"], value)]
                found += [] if examples and None not in examples else [f"{where}: no example"]
        for parameter in operation.get("parameters", ()):
            for value in parameter["schema"].get("examples", ()):
                where = f"{name} {parameter['name']}"
                found += [f"{where}: {fault}" for fault in faults(document, parameter["schema"], value)]
            has_one = parameter["schema"].get("examples") or not parameter["required"]
            found += [] if has_one else [f"{name} {parameter['name']}: no example"]
    assert found == []


def test_errors_are_problem_documents(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        if not operation.get("security"):
            continue
        errors = {status: one for status, one in operation["responses"].items() if status >= "400"}
        assert {"401", "403", "404", "409", "422", "429", "503"} <= errors.keys(), name
        for response in errors.values():
            assert response["content"].keys() == {"application/problem+json"}, name


def test_no_answer_but_those_on_request_has_an_embedding(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    with_embedding = {
        name
        for name, schema in schemas.items()
        if {"embedding", "augmented_embedding"} & schema.get("properties", {}).keys()
    }
    answers = {"EmbeddingAnswer", "EnrollAnswer", "VoiceprintAnswer"}
    assert with_embedding == answers | {"EnrollOptions", "MatchOptions", "VerifyOptions"}


def test_the_list_of_the_page_names_every_operation(document: dict[str, Any]) -> None:
    page = (Path(__file__).parents[2] / "docs/server.md").read_text()
    missing = []
    for name, _ in operations(document):
        method, path = name.split()
        if f"{method.upper()} `{path.removeprefix('/v1/galleries/{gallery}')}`" not in page:
            missing.append(name)
    assert missing == []
