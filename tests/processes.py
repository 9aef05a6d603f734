"""Several processes on one store, for the tests: starting, forking and killing them."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from forked import ForkedPython
from stores import assert_embedding, forget_json_files, state, unit, voiceprint

from voiceprint import Storage, open_storage

PRELUDE = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
import random
from stores import Follower, unit, voiceprint
from voiceprint import open_storage
storage, argument = open_storage(sys.argv[1]), sys.argv[2]
"""
# Says each number once its save has returned. Every other save is of three callers, as one change.
ENDLESS = """
print("ready", flush=True)
n = int(argument)
while True:
    if n % 2:
        storage.save(voiceprint(f"c{n}", n))
    else:
        many = [voiceprint(name, n, augmented=unit(n + 1)) for name in (f"c{n}", f"d{n}", "shared")]
        storage.save_many(many)
    print(n, flush=True)
    n += 1
"""
# Stores so many voiceprints at once where files may grow to so many bytes, and then one alone.
FILLING = """
import resource
from voiceprint import StorageUnavailableError
sys.dont_write_bytecode = True
size, prints = map(int, argument.split())
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
try:
    storage.save_many([voiceprint(f"c{n}", n) for n in range(prints)])
except StorageUnavailableError:
    print("told", storage.count())
storage.save(voiceprint("late", 1))
"""
# Opens the store at a URL, and is killed at the given commit of its adoption, before or after it.
KILLED_WHILE_ADOPTING = """
import os, signal, sys
from voiceprint import open_storage
from voiceprint.storage.redis.commit import Committer
send, left = Committer._send, int(sys.argv[3])

def deadly(*arguments):
    global left
    left -= 1
    answer = send(*arguments) if left or sys.argv[2] == "after" else None
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    return answer

Committer._send = deadly
open_storage(sys.argv[1])
"""
# What a store is looked through for grows with what is in it: a new one after so many crashes.
CRASHES_A_STORE = 10


def python(code: str, **environment: str) -> str:
    """The output of a fresh interpreter that runs `code` with warnings as errors."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True, text=True, check=False, env=os.environ | environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def start(url: str, script: str, argument: object = "", stdin: int | None = None) -> ForkedPython:
    """A process that runs `script` with the `storage` at `url`, and the `argument` as text."""
    return ForkedPython(PRELUDE + script, url, argument, stdin=stdin)


def finish(process: ForkedPython, timeout: float = 60) -> str:
    """Wait for a process to end well; gives what it printed."""
    said, _ = process.communicate(timeout=timeout)
    assert process.returncode == 0
    return said


def fill_disk(url: str, size: int, prints: int) -> str:
    """Store more at once than files of so many bytes take, and then one caller, `late`, who finds room.

    Gives "told", and how many voiceprints the store held after it had told of the failure.
    """
    return finish(start(url, FILLING, f"{size} {prints}"))


def fork_while_threads_write(storage: Storage, threads: int) -> None:
    """Fork children that read and write, one after the other, while threads of this process write."""
    storage.save(voiceprint())
    done = threading.Event()

    def busy() -> None:
        n = 0
        while not done.is_set():
            storage.save(voiceprint("parent", n))
            n += 1

    def work(number: int) -> None:
        assert storage.get("alice") is not None
        storage.save(voiceprint(f"child {number}"))
        assert storage.get(f"child {number}") is not None

    writers = [threading.Thread(target=busy) for _ in range(threads)]
    for writer in writers:
        writer.start()
    try:
        for number in range(8):
            in_child(lambda number=number: work(number))
    finally:
        done.set()
        for writer in writers:
            writer.join()
    assert {f"child {n}" for n in range(8)} <= set(state(storage))
    assert storage.check() == []


def kill_writers(new_store: Callable[[], str], crashes: int) -> None:
    """Kill a writer again and again, at random moments: what it has told of is there, and at most one more.

    new_store: gives the URL of an empty store.
    """
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for start_of_store in range(0, crashes, CRASHES_A_STORE):
        url, done = new_store(), 0
        for _ in range(min(CRASHES_A_STORE, crashes - start_of_store)):
            done = max(killed(start(url, ENDLESS, done), chance), default=done - 1) + 1
            with opened_anew(url) as storage:
                names = {caller.caller_id for caller in storage.iter_callers()}
                assert names in (_names(done), _names(done + 1))
                assert storage.check() == []
        with opened_anew(url) as storage:
            assert state(storage).keys() == names
            for print_ in storage.get_all():  # each is made from the number in the caller's name
                if print_.caller_id != "shared":
                    number = int(print_.caller_id[1:])
                    assert_embedding(print_.embedding, unit(number))
                    assert (print_.augmented is None) == bool(number % 2)
                    if print_.augmented is not None:
                        assert_embedding(print_.augmented, unit(number + 1))
            storage.save(voiceprint("after"))


def killed(writer: ForkedPython, chance: random.Random) -> list[int]:
    """Kill a writer in a moment; gives what it has told of."""
    assert writer.stdout.readline() == "ready\n"
    killer = threading.Timer(chance.uniform(0, 0.15), writer.kill)
    killer.start()
    said = [int(line) for line in writer.stdout.read().split("\n") if line.strip()]
    killer.join()
    assert writer.wait() == -signal.SIGKILL
    writer.stdout.close()
    return said


def opened_anew(url: str) -> Storage:
    """The store at a URL, as a new process opens it."""
    forget_json_files()
    return open_storage(url)


def _names(done: int) -> set[str]:
    """The callers that there are after so many saves."""
    return {f"c{n}" for n in range(done)} | {name for n in range(0, done, 2) for name in (f"d{n}", "shared")}


def kill_while_adopting(url: str, moment: str, commit: int) -> None:
    """Kill a process that opens the store at `url`, right before or after its `commit`th commit."""
    process = subprocess.run(
        [sys.executable, "-c", KILLED_WHILE_ADOPTING, url, moment, str(commit)], check=False
    )
    assert process.returncode == -signal.SIGKILL


def unknown_user() -> list[str]:
    """The start of a command line that runs as a user who is in no list of users, and not as root.

    Where that cannot be had, the test fails in CI and is skipped elsewhere.
    """
    way = ["unshare", "--user", "--map-user=12345", "--map-group=12345"]
    if shutil.which("unshare") and subprocess.run([*way, "true"], capture_output=True).returncode == 0:
        return way
    shown = "unshare is missing, or may not run a command as another user"
    if os.environ.get("CI"):
        pytest.fail(shown)
    pytest.skip(shown)


def in_child(work: Callable[[], None]) -> None:
    """Run `work` in a fork of this process, and fail if it fails or hangs."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:  # noqa: BLE001 - told on stderr, as no exception leaves a child
            traceback.print_exc(file=sys.__stderr__)
        finally:
            os._exit(code)
    deadline = time.monotonic() + 60  # loading a network takes this long beside a load
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            assert status == 0
            return
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            pytest.fail("the child hangs")
        time.sleep(0.005)
