"""How late does a node of a service find a caller who was enrolled at another, and name one who was deleted?

    python -m benchmarks.nodes URL [--prints 100000] [--rounds 300]

Two services, as on two machines: snapshots and ports of their own, the PostgreSQL database of the URL for the
records and the state. It must be empty, and keeps the generated voiceprints. A round enrolls a caller by a
sample voice at one node, asks the other until its answer names the caller, deletes the caller at the first
node, and asks the other again. The lag runs from the answer of the enrollment until the answer that names the
caller, so it holds a whole identification; the baseline, in turns, asks the node that enrolled.
"""

from __future__ import annotations

import itertools
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx

from benchmarks.filled_store import fill_store
from benchmarks.measure import spread_ms
from benchmarks.report import VOICES, command_line, write
from benchmarks.soak import served_store
from voiceprint import open_storage

# The recordings come again and again, and the time of the simulated lines is not the question.
SETTINGS = {
    "VOICE_SAME_RECORDING": "false",
    "VOICE_ENROLL_SIMULATED_LINES": "false",
    "VOICE_TARGET_FPIR": "0.01",
}


class Node:
    """A running service. client: of its gallery."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def enroll(self, caller_id: str, audio: bytes) -> None:
        """Enroll, and wait for the answer."""
        self._client.post(f"callers/{caller_id}/voiceprints", content=audio).raise_for_status()

    def delete(self, caller_id: str) -> None:
        """Delete, and wait for the answer."""
        self._client.delete(f"callers/{caller_id}").raise_for_status()

    def named(self, audio: bytes) -> list[str]:
        """The callers of an identification, the best first."""
        answer = self._client.post("identify", content=audio).raise_for_status().json()
        return [match["caller_id"] for match in answer["matches"]]


def main() -> int:
    """Measure, print, write the raw figures."""
    parser = command_line(__doc__)
    parser.add_argument("url", help="of an empty PostgreSQL database")
    parser.add_argument("--prints", type=int, default=100_000, help="generated voiceprints in the store")
    parser.add_argument("--rounds", type=int, default=300, help="enrollments of each kind")
    options = parser.parse_args()
    with open_storage(options.url) as storage:
        fill_store(storage, options.prints)
    figures: dict[str, Any] = {"prints": options.prints, "rounds": options.rounds}
    with ExitStack() as stack:
        nodes = list(started(stack, options.url))
        figures |= measure(nodes, options.rounds)
    for name, value in figures.items():
        print(f"  {name:24}{json.dumps(value)}")
    write("nodes", figures, options.results)
    return 0


def started(stack: ExitStack, url: str) -> Iterator[Node]:
    """Two nodes that are ready."""
    for _ in range(2):
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        settings = {**SETTINGS, "VOICE_INDEX_PATH": str(folder / "index")}
        service = stack.enter_context(served_store(folder, url, workers=1, state=url, **settings))
        base = f"http://127.0.0.1:{service.port}/v1/galleries/default/"
        yield Node(stack.enter_context(httpx.Client(base_url=base, headers=service.headers, timeout=60)))


def measure(nodes: list[Node], rounds: int) -> dict[str, Any]:
    """The lags, and the answers that named a caller who had been deleted."""
    audios = itertools.cycle([path.read_bytes() for path in sorted(VOICES.glob("*/*.flac"))])
    lags: dict[str, list[float]] = {"other_node": [], "same_node": []}
    most_asked = named_deleted = 0
    for number in range(-5, rounds):  # the first warm up
        for kind, found in lags.items():
            one = nodes[number % 2]
            asked = nodes[1 - number % 2] if kind == "other_node" else one
            caller_id, audio = f"round-{number}-{kind}", next(audios)
            one.enroll(caller_id, audio)
            begun, count = time.perf_counter(), 1
            while asked.named(audio)[:1] != [caller_id]:
                count += 1
            if number >= 0:
                found.append(time.perf_counter() - begun)
            most_asked = max(most_asked, count)
            one.delete(caller_id)
            named_deleted += caller_id in asked.named(audio)
    return {
        **{f"lag_{kind}_ms": spread_ms(found) for kind, found in lags.items()},
        "most_asked": most_asked,
        "named_deleted": named_deleted,
    }


if __name__ == "__main__":
    sys.exit(main())
