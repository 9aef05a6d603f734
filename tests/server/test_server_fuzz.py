"""Requests that schemathesis makes of the OpenAPI document: no 5xx, and answers as documented.

VOICE_FUZZ_REQUESTS=N: random requests of each operation, beside those at the limits of its schemas.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import CHECKS, load_all_checks
from serving import Running, serve
from voices import SAMPLES, BandEncoder, by_cosine

from voiceprint import MemoryStorage, OpusAgentVoiceRecognizer, Recording
from voiceprint.server import ServerSettings, Service, create_app
from voiceprint.server.openapi import AUDIO_TYPES

# Without a server, as it names the tests.
API = schemathesis.openapi.from_dict(create_app(Service({}, ServerSettings(state="unused.db"))).openapi())

for kind in AUDIO_TYPES:

    @schemathesis.serializer(kind)
    def as_it_is(_: object, value: object) -> bytes:
        """A recording is bytes already; a value of another type, which breaks the schema, is sent as text."""
        return value if isinstance(value, bytes) else str(getattr(value, "data", value)).encode()


load_all_checks()
CHECKED = [
    check
    for check in CHECKS.get_all()
    # Random ids are of nobody, and random bytes no audio: a 422 is right for what the schema allows.
    if check.__name__ not in ("positive_data_acceptance", "ensure_resource_availability")
]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service with a gallery that holds the caller of the examples."""
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "jobs" / "default").mkdir(parents=True)
    recognizer = OpusAgentVoiceRecognizer(
        MemoryStorage(), encoder=BandEncoder(), config=by_cosine(audit=folder / "audit.jsonl")
    )
    recognizer.enroll_caller("alice", Recording.open(SAMPLES / "amara" / "1.flac"))
    settings_ = ServerSettings(state=str(folder / "state.db"), rate_limit=0, jobs_folder=folder / "jobs")
    with serve(Service({"default": recognizer}, settings_)) as server:
        yield server


@pytest.fixture(scope="module")
def key(running: Running) -> dict[str, str]:
    """The headers with a key of all roles."""
    return running.headers("admin", "audit")


@pytest.mark.slow
@API.parametrize()
@settings(
    max_examples=int(os.environ.get("VOICE_FUZZ_REQUESTS", "3")),
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_a_random_request_gets_a_documented_answer(
    case: schemathesis.Case, running: Running, key: dict[str, str]
) -> None:
    checks = CHECKED
    if case.operation.definition.raw["operationId"] == "announce_call":
        # Its options are those of telephony platforms, which send numbers and booleans as texts.
        checks = [check for check in CHECKED if check.__name__ != "negative_data_rejection"]
    case.call_and_validate(base_url=running.url, headers=key, checks=checks, timeout=60)
