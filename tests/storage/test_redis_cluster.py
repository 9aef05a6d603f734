"""A Redis Cluster of three nodes: what one change touches shares a slot, and the feed is on all of them."""

from __future__ import annotations

import itertools
import json
import subprocess
import time
from collections.abc import Iterator

import pytest
import redis
from harness import Harness
from processes import kill_while_adopting
from redis.cluster import RedisCluster
from redis_server import PATIENCE_S, RedisServer, free_port
from storage_machine import run_machine
from stores import Follower, ids_of, state, voiceprint

from voiceprint import InvalidArgumentError, RedisStorage, StorageUnavailableError, Voiceprint, open_storage
from voiceprint.storage import prune_space
from voiceprint.storage.base import Position, SpaceCounts

SLOTS = 16_384


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[RedisServer]]:
    """Three nodes that have become a cluster."""
    options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000")
    started: list[RedisServer] = []
    try:
        started += (RedisServer(*options, "--databases", "1", port=free_port()) for _ in range(3))
        _join(started)
        yield started
    finally:
        for node in started:
            node.end()


def _join(nodes: list[RedisServer]) -> None:
    for number, node in enumerate(nodes):
        with node.client() as client:
            first, last = number * SLOTS // 3, (number + 1) * SLOTS // 3 - 1
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
            client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            client.execute_command("CLUSTER", "MEET", "127.0.0.1", nodes[0].port)
    deadline = time.monotonic() + PATIENCE_S
    for node in nodes:
        with node.client() as client:
            while True:
                known = client.execute_command("CLUSTER INFO")
                if known["cluster_state"] == "ok" and known["cluster_known_nodes"] == "3":
                    break
                assert time.monotonic() < deadline, known
                time.sleep(0.05)


@pytest.fixture
def client(nodes: list[RedisServer]) -> Iterator[RedisCluster]:
    """A client of the emptied cluster."""
    for node in nodes:
        with node.client() as single:
            single.flushall()
    with RedisCluster(host="127.0.0.1", port=nodes[0].port) as cluster:
        yield cluster


@pytest.fixture
def storage(client: RedisCluster) -> Iterator[RedisStorage]:
    with RedisStorage(client) as opened:
        yield opened
        assert opened.check() == []


def test_callers_are_saved_read_changed_and_deleted(storage: RedisStorage, client: RedisCluster) -> None:
    saved = storage.save_many([voiceprint(f"c{n % 40}", n, metadata={"n": n}) for n in range(200)])
    storage.save_many([voiceprint(name, 5) for name in (":*[]", "{a}b", "a\0b", "é")])
    assert len(set(ids_of(saved))) == 200
    assert storage.touch("c3", "2099-01-01T00:00:00Z")
    storage.update_metadata("c4", {"x": 1})
    assert storage.delete("c5") == 3
    before = state(storage)
    assert len(before) == 43
    assert all(len(caller["voiceprints"]) <= 3 for caller in before.values())
    assert before["c3"]["last_seen"] == "2099-01-01T00:00:00.000000Z"
    assert before["c4"]["metadata"] == "{'n': 164, 'x': 1}"
    with RedisStorage(client) as again:
        assert state(again) == before
        assert again.check() == []
    port = client.get_primaries()[0].port
    with RedisCluster(host="127.0.0.1", port=port, decode_responses=True) as decoding:
        assert state(RedisStorage(decoding)) == before


def test_the_keys_of_a_caller_share_a_slot_and_the_feed_is_on_every_node(
    storage: RedisStorage, client: RedisCluster
) -> None:
    storage.save_many([voiceprint(f"c{n}", n) for n in range(100)])
    feeds, slots = set(), {}
    for node in client.get_primaries():
        single = client.get_redis_connection(node)
        for key in single.scan_iter(count=1_000):
            slot = client.keyslot(key)
            tag = key.partition(b"}")[0]
            assert slots.setdefault(tag, slot) == slot
            if key.endswith(b"}:feed"):
                feeds.add(node.name)
                assert single.zcard(key) < 50
    assert len(feeds) == 3
    assert len(set(slots.values())) > 10


def test_a_follower_keeps_in_step_over_all_nodes(storage: RedisStorage, client: RedisCluster) -> None:
    follower, revision = Follower(), storage.revision()
    follower.assert_in_step(storage)
    for n in range(60):
        print_ = storage.save(voiceprint(f"c{n % 20}", n))
        assert storage.revision() > revision
        revision, position = storage.revision(), storage.position()
        assert print_.revision <= revision
        if n % 7 == 6:
            storage.delete(f"c{n % 20}")
        follower.assert_in_step(storage)
    assert follower.rebuilds == 1
    assert len(storage.changes(position).ids) < 3
    parts = position.token.split(",")
    assert storage.changes(Position(position.revision, ",".join(parts[::-1]))) is None
    assert storage.changes(Position(position.revision, ",".join(parts[:-1]))) is None
    assert storage.changes(Position(12345, "")) is None


def test_what_the_rules_refuse_is_refused_before_any_node_is_written_to(storage: RedisStorage) -> None:
    storage.save(voiceprint("alice", encoder="other"))
    revision, before = storage.revision(), state(storage)
    bad = voiceprint("last")
    bad.metadata["bad"] = float("nan")
    with pytest.raises(InvalidArgumentError):
        storage.save_many([*(voiceprint(f"c{n}") for n in range(50)), bad])
    with pytest.raises(InvalidArgumentError, match="values"):
        storage.save_many([Voiceprint(f"c{n}", [1.0] * 9, encoder="other") for n in range(5)])
    assert (state(storage), storage.revision()) == (before, revision)


def test_callers_are_restored_with_their_ids(storage: RedisStorage, client: RedisCluster) -> None:
    storage.save_many([voiceprint(f"c{n % 30}", n) for n in range(60)])
    callers, before = storage.callers(), state(storage)
    assert storage.restore_many(callers) == 0
    for caller in callers:
        storage.delete(caller.caller_id)
    top = max(print_.id for caller in callers for print_ in caller.voiceprints)
    with RedisStorage(client, prefix="again:") as again:
        assert again.restore_many(callers) == 30
        kept = state(again)
        assert [ids_of(caller.voiceprints) for caller in again.callers()] == [
            ids_of(caller.voiceprints) for caller in callers
        ]
        assert kept.keys() == before.keys()
        assert again.save(voiceprint("new")).id > top
        stranger = callers[0].model_copy(update={"caller_id": "stranger"})
        with pytest.raises(InvalidArgumentError, match="another caller"):
            again.restore_many([stranger])


def test_spaces_are_counted_and_deleted_over_all_nodes(storage: RedisStorage) -> None:
    storage.save_many(voiceprint(f"c{n}", n) for n in range(60))
    storage.save_many(voiceprint(f"c{n}", n, encoder="other") for n in range(40, 80))
    assert storage.coverage() == {
        "resemblyzer": SpaceCounts(256, 60, 60, 40),
        "other": SpaceCounts(8, 40, 40, 20),
    }
    report = prune_space(storage, "other", delete_callers=True, dry_run=False)
    assert (report.voiceprints, report.callers, len(report.deleted_callers)) == (40, 20, 20)
    assert storage.coverage() == {"resemblyzer": SpaceCounts(256, 60, 60, 60)}


@pytest.mark.no_cover
@pytest.mark.slow
def test_any_run_of_operations_leaves_the_cluster_like_a_dict(
    client: RedisCluster, request: pytest.FixtureRequest
) -> None:
    counter = itertools.count()

    def make() -> Harness:
        prefix = f"machine{next(counter)}:"
        return Harness(lambda **options: RedisStorage(client, prefix=prefix, **options), persists=True)

    run_machine(make, examples=request.config.getoption("--runs") // 2)


def test_records_of_opusagent_are_taken_over(client: RedisCluster) -> None:
    for n in range(20):
        entry = {"caller_id": f"c{n}", "embedding": [float(n + 1)] * 256, "metadata": {"n": n}}
        client.set(f"voiceprint:c{n}", json.dumps(entry))
    with RedisStorage(client) as storage:
        assert {caller.caller_id: caller.metadata for caller in storage.callers()} == {
            f"c{n}": {"n": n} for n in range(20)
        }
        assert client.get("voiceprint:c3") is None
        assert storage.check() == []


@pytest.mark.parametrize("moment", ["before", "after"])
def test_an_adoption_that_is_killed_in_the_middle_loses_and_doubles_nothing(
    nodes: list[RedisServer], client: RedisCluster, moment: str
) -> None:
    names = {f"c{n}" for n in range(200)}
    for name in names:
        client.set(f"voiceprint:{name}", json.dumps({"embedding": [float(name[1:]) + 1] * 256}))
    kill_while_adopting(nodes[0].url(), moment, 5)
    assert 0 < len(list(client.scan_iter("voiceprint:*"))) < 200
    with RedisStorage(client) as storage:
        assert list(client.scan_iter("voiceprint:*")) == []
        assert storage.check() == []
        prints = storage.get_all()
        assert {print_.caller_id for print_ in prints} == names
        assert len(prints) == len(set(ids_of(prints))) == 200


def test_a_url_of_one_node_opens_the_cluster(nodes: list[RedisServer], storage: RedisStorage) -> None:
    storage.save_many([voiceprint(f"c{n}") for n in range(20)])
    with open_storage(nodes[1].url()) as opened:
        assert state(opened) == state(storage)
        assert opened.location == storage.location
    with open_storage(storage.location) as again:
        assert again.count() == 20


def test_a_handle_on_a_store_that_is_not_there_yet_takes_the_shards_of_its_maker(
    nodes: list[RedisServer], client: RedisCluster
) -> None:
    early, late = (RedisStorage(client, shards=shards) for shards in (3, 7))
    assert early.count() == early.delete("alice") == 0
    assert not early.exists()
    for node in nodes:
        with node.client() as single:
            assert single.dbsize() == 0
    late.save_many([voiceprint(f"c{n}", n) for n in range(20)])
    assert early.exists()
    assert state(early) == state(late)
    early.save(voiceprint("one more"))
    assert state(early) == state(late)
    assert early.check() == []
    early.close()
    late.close()


def test_a_client_of_one_node_alone_is_told_to_use_a_cluster_client(
    nodes: list[RedisServer], storage: RedisStorage
) -> None:
    storage.save(voiceprint())
    causes = []
    for node in nodes:
        with node.client() as single:
            try:
                RedisStorage(single).close()
            except StorageUnavailableError as error:
                causes.append((str(error), error.__cause__))
    assert len(causes) == 2  # the third node has the slot that an opening looks at
    assert all("RedisCluster" in said and isinstance(cause, redis.ResponseError) for said, cause in causes)


def test_redis_cli_finds_the_cluster_whole(nodes: list[RedisServer], storage: RedisStorage) -> None:
    done = subprocess.run(
        ["redis-cli", "--cluster", "check", f"127.0.0.1:{nodes[0].port}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "All 16384 slots covered" in done.stdout
