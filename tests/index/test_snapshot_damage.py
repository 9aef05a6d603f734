"""No damaged, foreign, older or newer file, nor one that states what no index has, is loaded in any part."""

from __future__ import annotations

import hashlib
import json
import math
import resource
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from processes import in_child
from vectors import made_trained

from voiceprint.index import IndexCorruptError, VectorIndex, read_stamp

GOLDEN = Path(__file__).parents[1] / "golden"
OPTIONS: dict[str, Any] = {"exact_up_to": 200}
FOOTER = struct.Struct("<Q32s")


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A snapshot with a trained part."""
    path = tmp_path_factory.mktemp("snapshot") / "s"
    made_trained()[0].save(path, stamp={"revision": "1"})
    assert len(VectorIndex.load(path, **OPTIONS)) == 300
    return path.read_bytes()


def table_at(content: bytes) -> int:
    """The place where the table starts."""
    return len(content) - FOOTER.size - int(FOOTER.unpack(content[-FOOTER.size :])[0])


def assert_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(IndexCorruptError, match=path.name):
        VectorIndex.load(path, **OPTIONS)


def test_a_flipped_bit_anywhere_is_noticed(content: bytes, tmp_path: Path) -> None:
    start, chance = table_at(content), np.random.default_rng(5)
    places = [*range(8), *range(start, len(content)), *chance.integers(8, start, 1_000).tolist()]
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(chance.integers(8))
        assert_refused(tmp_path / "s", damaged)


def test_a_snapshot_cut_off_or_grown_anywhere_is_refused(content: bytes, tmp_path: Path) -> None:
    chance = np.random.default_rng(6)
    lengths = {*range(100), *range(len(content) - 200, len(content))}
    for length in sorted(lengths | set(chance.integers(0, len(content), 300).tolist())):
        assert_refused(tmp_path / "s", content[:length])
    for more in (b"\0", content[-FOOTER.size :], content):
        assert_refused(tmp_path / "s", content + more)


def test_parts_of_two_snapshots_do_not_go_together(content: bytes, tmp_path: Path) -> None:
    made_trained(seed=1)[0].save(tmp_path / "other", stamp={"revision": "1"})
    other = (tmp_path / "other").read_bytes()
    start = 8 + 300 * 8  # up to there both are the same
    for place in range(start + 50, min(len(content), len(other)) - 200, 401):
        assert_refused(tmp_path / "s", content[:place] + other[place:])


@pytest.mark.parametrize(
    "foreign",
    [b"", b"{}", b"VPINDEX4", b"VPINDEX3" + bytes(500), b"\0" * 1000, b"SQLite format 3\0" * 20],
    ids=["empty", "JSON", "magic alone", "of the future", "zeros", "database"],
)
def test_a_foreign_file_is_refused(tmp_path: Path, foreign: bytes) -> None:
    assert_refused(tmp_path / "s", foreign)
    with pytest.raises(IndexCorruptError):
        read_stamp(tmp_path / "s")


def test_a_snapshot_of_another_version_is_refused_as_such(content: bytes, tmp_path: Path) -> None:
    assert_refused(tmp_path / "s", (GOLDEN / "index-1.snapshot").read_bytes())
    assert_refused(tmp_path / "s", b"VPINDEX3" + content[8:])
    with pytest.raises(IndexCorruptError, match="version"):
        read_stamp(tmp_path / "s")


def forged(content: bytes, change: Callable[[dict[str, Any]], Any]) -> bytes:
    """The same with another table, whose checksum matches."""
    start = table_at(content)
    table = json.loads(content[start : -FOOTER.size])
    given = change(table)
    raw = given if isinstance(given, bytes) else json.dumps(table).encode()
    return with_table(content[:start], raw)


def with_table(parts: bytes, table: bytes) -> bytes:
    return parts + table + FOOTER.pack(len(table), hashlib.sha256(table).digest())


def hostile(content: bytes, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> bytes:
    """The same with other parts, and a table that fits: all its checksums match."""
    table = json.loads(content[table_at(content) : -FOOTER.size])
    raw, at = {}, 8
    for part in table["parts"]:
        size = math.prod(part["shape"]) * np.dtype(part["dtype"]).itemsize
        raw[part["name"]] = bytearray(content[at : at + size])
        at += size
    change(table, raw)
    made = bytearray(b"VPINDEX4")
    for part in table["parts"]:
        part["digest"] = hashlib.sha256(raw[part["name"]]).hexdigest()
        made += raw[part["name"]]
    return with_table(bytes(made), json.dumps(table).encode())


def part(table: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [part for part in table["parts"] if part["name"] == name]
    return cast("dict[str, Any]", found)


ABSURD = [-1, 2**31 + 1, 2**62, 2**63, 2**64, 10**30, 1.5, "1", None, True, [], {}, 0]
NUMBERS = {
    "dimension": lambda t, v: t.update(dimension=v),
    "shape of a part": lambda t, v: part(t, "ivf").update(shape=[v]),
    "shape": lambda t, v: part(t, "vectors").update(shape=v),
    "type of a part": lambda t, v: part(t, "ivf").update(dtype=v),
    "name of a part": lambda t, v: part(t, "ivf").update(name=v),
    "digest": lambda t, v: part(t, "ivf").update(digest=v),
    "nprobe": lambda t, v: t["trained"].update(nprobe=v),
    "recall": lambda t, v: t["trained"].update(recall=v),
    "on": lambda t, v: t["trained"].update(on=v),
    "trained": lambda t, v: t.update(trained=v),
    "parts": lambda t, v: t.update(parts=v),
    "stamp": lambda t, v: t.update(stamp={"revision": v}),
}
POSSIBLE: dict[str, list[Any]] = {
    "stamp": ["1"], "nprobe": [0], "recall": [0], "on": [0, 2**31 + 1, 2**62, 2**63, 2**64, 10**30],
    "trained": [None],
}  # fmt: skip


@pytest.mark.parametrize("what", NUMBERS)
def test_a_table_that_states_what_no_index_has_is_refused(what: str, content: bytes, tmp_path: Path) -> None:
    for value in ABSURD:
        if any(value is possible or (value == possible and value) for possible in POSSIBLE.get(what, [])):
            continue
        path = tmp_path / "s"
        path.write_bytes(forged(content, lambda table, value=value: NUMBERS[what](table, value)))
        try:
            VectorIndex.load(path, **OPTIONS)
        except IndexCorruptError:
            continue
        pytest.fail(f"a {what} of {value!r} was taken")


FORGERIES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "not JSON": lambda t: b"{",
    "not UTF-8": lambda t: b'{"\xff": 1}',
    "deeper than Python goes": lambda t: b"[" * 100_000,
    "a list": lambda t: b"[]",
    "null": lambda t: b"null",
    "no dimension": lambda t: t.pop("dimension"),
    "no stamp": lambda t: t.pop("stamp"),
    "no training": lambda t: t.pop("trained"),
    "no part": lambda t: t["parts"].pop(),
    "a part twice": lambda t: t["parts"].append(part(t, "ids")),
    "parts in another order": lambda t: t["parts"].reverse(),
    "ids for vectors": lambda t: part(t, "vectors").update(name="buffer_vectors"),
    "another type of the same size": lambda t: part(t, "projection").update(dtype="<f2", shape=[16, 8]),
}


@pytest.mark.parametrize("forgery", FORGERIES.values(), ids=FORGERIES)
def test_a_table_of_another_form_is_refused(
    forgery: Callable[[dict[str, Any]], Any], content: bytes, tmp_path: Path
) -> None:
    assert_refused(tmp_path / "s", forged(content, forgery))


def _overlapping(table: dict[str, Any], _: dict[str, Any]) -> None:
    table["parts"] *= 2_000


def _text_for_nprobe(table: dict[str, Any], _: dict[str, Any]) -> None:
    table["trained"]["nprobe"] = "1"


def _no_recall(table: dict[str, Any], _: dict[str, Any]) -> None:
    table["trained"]["recall"] = float("nan")


def _a_large_table(table: dict[str, Any], _: dict[str, Any]) -> None:
    table["stamp"]["note"] = "x" * (5 << 20)


def _an_id_twice(_: dict[str, Any], raw: dict[str, Any]) -> None:
    np.frombuffer(raw["ids"], dtype="<i8")[0] = np.frombuffer(raw["ids"], dtype="<i8")[1]


def _an_id_below_0(_: dict[str, Any], raw: dict[str, Any]) -> None:
    np.frombuffer(raw["ids"], dtype="<i8")[0] = -2


def _nan_among_the_vectors(_: dict[str, Any], raw: dict[str, Any]) -> None:
    np.frombuffer(raw["vectors"], dtype="<f2")[7] = np.nan


def _infinity_among_the_vectors(_: dict[str, Any], raw: dict[str, Any]) -> None:
    np.frombuffer(raw["vectors"], dtype="<f2")[-1] = np.inf


def _nan_in_the_projection(_: dict[str, Any], raw: dict[str, Any]) -> None:
    np.frombuffer(raw["projection"], dtype="<f4")[0] = np.nan


CENTERS = struct.pack("<Q", 17 * 8)  # the size of faiss's first array: 17 centers of 8 values


def _far_away_center(_: dict[str, Any], raw: dict[str, Any]) -> None:
    place = bytes(raw["ivf"]).index(CENTERS) + 8
    raw["ivf"][place : place + 4] = struct.pack("<f", 1e30)


def _huge_array_of_faiss(_: dict[str, Any], raw: dict[str, Any]) -> None:
    place = bytes(raw["ivf"]).index(CENTERS)
    raw["ivf"][place : place + 8] = struct.pack("<Q", 2**38)


HOSTILE = [
    _overlapping, _text_for_nprobe, _no_recall, _a_large_table, _an_id_twice, _an_id_below_0,
    _nan_among_the_vectors, _infinity_among_the_vectors, _nan_in_the_projection, _far_away_center,
    _huge_array_of_faiss,
]  # fmt: skip


@pytest.mark.parametrize("change", HOSTILE)
def test_hostile_content_whose_checksums_hold_is_refused_and_takes_no_memory(
    change: Callable[[dict[str, Any], dict[str, Any]], None], content: bytes, tmp_path: Path
) -> None:
    def load() -> None:
        _limit_memory()
        assert_refused(tmp_path / "s", hostile(content, change))

    in_child(load)


def _limit_memory() -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20),) * 2)


def test_a_rewritten_snapshot_is_taken(content: bytes, tmp_path: Path) -> None:
    """So that those above are refused for what is hostile in them."""
    (tmp_path / "s").write_bytes(hostile(content, lambda table, raw: None))
    assert len(VectorIndex.load(tmp_path / "s", **OPTIONS)) == 300


def test_vectors_of_another_length_than_1_are_refused_where_that_is_wanted(tmp_path: Path) -> None:
    path, index = tmp_path / "s", VectorIndex(2)
    index.add([1, 2], [[1, 0], [0.6, 0.8]])
    index.save(path)
    assert len(VectorIndex.load(path, unit=True)) == 2
    index.add([3], [[1, 1]])
    index.save(path)
    assert len(VectorIndex.load(path)) == 3
    with pytest.raises(IndexCorruptError, match="length is not 1"):
        VectorIndex.load(path, unit=True)


def test_faiss_bytes_changed_anywhere_are_refused_or_search_on(content: bytes, tmp_path: Path) -> None:
    chance = np.random.default_rng(8)
    places = [*range(260), *chance.integers(0, 6_000, 100).tolist()]

    def change_some(place: int, _: dict[str, Any], raw: dict[str, Any]) -> None:
        raw["ivf"][place] = int(chance.choice([0, 1, 0x7F, 0x80, 0xFF]))

    for place in places:
        (tmp_path / "s").write_bytes(hostile(content, partial(change_some, place)))
        try:
            index = VectorIndex.load(tmp_path / "s", **OPTIONS)
        except IndexCorruptError:
            continue
        query = np.ones((1, index.dimension), dtype=np.float32)
        assert index.search(query, 5)[1].shape == (1, 5)
        index.remove(index.ids()[:3])
        index.add([7_000], query)
        assert index.search(query, 300)[1].shape == (1, 300)
