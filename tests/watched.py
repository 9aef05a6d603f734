"""Runs a command under strace, if it can be without a network: what it connects to, and what it writes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pytest

_CALLS = "socket,socketpair,connect,open,openat,creat,mkdir,mkdirat,mknod,mknodat,rename,renameat,renameat2"
_NETWORK = re.compile(r"(socket|socketpair|connect)\(")
_OPENED = re.compile(r"(?:open|openat|creat)\(.*(?:O_CREAT|O_TMPFILE).* = \d+<(.*)>(?:\(deleted\))?$")
_NAMED = re.compile(r'(?:mkdir|mknod|rename)\w*\(.*"(.*?)".* = 0$')


@dataclass(frozen=True)
class Watched:
    """The effects of a command.

    network: its system calls that have to do with it. created: paths of the files and folders that it made,
    and may have removed again. home, temporary: what lies there at its end. said, complained: its output.
    """

    network: list[str]
    created: set[str]
    home: set[str]
    temporary: set[str]
    said: str
    complained: str


def watched(folder: Path, *command: object, **environment: str) -> Watched:
    """Run a command with a new HOME and TMPDIR, in the folder `work`; it has to succeed."""
    for name in ("home", "temporary", "traces", "work"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [*_alone(), _strace(), "-ff", "--seccomp-bpf", "-y", "-s", "4096", "-e", f"trace={_CALLS}",
         "-o", folder / "traces/of", *map(str, command)],
        env={"PATH": os.environ["PATH"], "HOME": str(folder / "home"), "TMPDIR": str(folder / "temporary"),
             "PYTHONDONTWRITEBYTECODE": "1"} | environment,
        cwd=folder / "work", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line for trace in (folder / "traces").iterdir() for line in trace.read_text().splitlines()]
    assert any("openat(" in line for line in lines), "strace saw nothing"
    found = [match[1] for line in lines for pattern in (_OPENED, _NAMED) if (match := pattern.match(line))]
    return Watched(
        network=[line for line in lines if _NETWORK.match(line)],
        created={str(folder / "work" / path) for path in found},
        home=_below(folder / "home"),
        temporary=_below(folder / "temporary"),
        said=done.stdout,
        complained=done.stderr,
    )


def _below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@lru_cache(maxsize=1)
def _alone() -> tuple[str, ...]:
    """The start of a command line that runs in a network namespace with nothing but loopback, if it can."""
    for start in (("unshare", "--net"), ("unshare", "--map-root-user", "--net")):
        if shutil.which("unshare") and subprocess.run([*start, "true"], capture_output=True).returncode == 0:
            return start
    return ()  # strace still tells what it tries


def _strace() -> str:
    """strace. Where there is none, or it may not trace, the test fails in CI and is skipped elsewhere."""
    found = shutil.which("strace")
    if found is not None and subprocess.run([found, "-f", "true"], capture_output=True).returncode == 0:
        return found
    shown = "strace is missing, or may not trace: it is needed to see what is connected to and written"
    if os.environ.get("CI"):
        pytest.fail(shown)
    pytest.skip(shown)
