"""Run what the Dockerfile says, without docker, and use the service that it makes.

python tests/container.py        as root; needs unshare, nsenter, mount and setpriv

In a mount namespace of its own, where /opt, /var/lib and later /tmp are empty: the RUN lines in their order.
Then all is made read-only but the volume and /tmp, and in a network namespace with loopback alone the user of
the image creates a key, serves, passes the health check, and enrolls and identifies a sample voice.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VOLUME = "/var/lib/voiceprint"
START_S = 120  # for a machine whose cores are busy


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile with their arguments, lines that go on joined."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines if line.strip()]


def last(name: str) -> str:
    """The arguments of the last instruction of this name."""
    return [arguments for one, arguments in instructions() if one == name][-1]


def context(folder: Path) -> None:
    """Copy what .dockerignore leaves: it names all and then exceptions, in whole names of the top."""
    lines = (ROOT / ".dockerignore").read_text().split()
    for name in (line[1:] for line in lines if line.startswith("!")):
        source, target = ROOT / name, folder / name
        if source.is_dir():
            shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)


def main() -> int:
    """Run the build in a namespace within the caller's."""
    tools = all(map(shutil.which, ("unshare", "nsenter", "mount", "setpriv")))
    if (
        not tools
        or subprocess.run(["unshare", "--mount", "--net", "mount", "--make-rprivate", "/"]).returncode
    ):
        print("The container's lines need root, unshare, nsenter, mount and setpriv.", file=sys.stderr)
        return 1 if os.environ.get("CI") else 0
    with tempfile.TemporaryDirectory() as folder:
        context(Path(folder))
        command = ["unshare", "--mount", "--net", "--propagation", "private", sys.executable, __file__]
        # The network of the caller, for pip, is kept open as a file: the check has loopback alone.
        with Path("/proc/self/ns/net").open() as network:
            os.set_inheritable(network.fileno(), True)
            command += ["inside", folder, str(network.fileno())]
            return subprocess.run(command, check=False, close_fds=False).returncode


def inside(folder: Path, network: int) -> None:
    """Build, make all read-only, and check."""
    audio = [(ROOT / f"examples/voices/amara/{number}.flac").read_bytes() for number in (1, 2)]
    base = sys.base_prefix
    for place in ("/opt", "/var/lib"):
        mount("-t", "tmpfs", "tmpfs", place)
    os.makedirs("/opt/python")  # noqa: PTH103 - a mount point
    mount("--bind", base, "/opt/python")
    build(folder, network)
    mount("--rbind", VOLUME, VOLUME)
    mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", "/tmp")
    for place in ("/opt", "/"):
        mount("-o", "remount,bind,ro", place)
    loopback_up()
    check(audio)


def build(folder: Path, network: int) -> None:
    """Run the WORKDIR, COPY and RUN lines of all stages, in one file system."""
    workdir = "/"
    environment = {**os.environ, "PATH": f"/opt/python/bin:{os.environ['PATH']}"}
    for name, arguments in instructions():
        if name == "WORKDIR":
            workdir = arguments
            os.makedirs(workdir, exist_ok=True)  # noqa: PTH103
        elif name == "COPY" and not arguments.startswith("--from"):
            *sources, target = arguments.split()
            for source in sources:
                subprocess.run(["cp", "-a", f"{folder}/{source}", f"{workdir}/{target}"], check=True)
        elif name == "RUN":
            started = time.monotonic()
            command = ["nsenter", f"--net=/proc/self/fd/{network}", "sh", "-ec", arguments]
            subprocess.run(command, check=True, cwd=workdir, env=environment, close_fds=False)
            print(f"{time.monotonic() - started:5.1f} s  {arguments}", flush=True)


def environment() -> dict[str, str]:
    """The environment of the image, and the folder of libpython, whose own path the user may not read."""
    given = dict(word.split("=", 1) for word in shlex.split(last("ENV")))
    return {**given, "LD_LIBRARY_PATH": "/opt/python/lib"}


def as_user(*command: str) -> list[str]:
    """The command line as the user of the image, without any right of root."""
    user, group = last("USER").split(":")
    rights = ["--clear-groups", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"]
    return ["setpriv", f"--reuid={user}", f"--regid={group}", *rights, *command]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the image to its end."""
    return subprocess.run(
        as_user(*command), cwd=last("WORKDIR"), env=environment(), capture_output=True, text=True, check=False
    )


def check(audio: list[bytes]) -> None:
    """Create a key, serve, ask, stop, and serve again."""
    (program,) = json.loads(last("ENTRYPOINT"))
    health = json.loads(last("HEALTHCHECK").partition(" CMD ")[2])
    for place in ("/", "/opt/voiceprint/bin", "/etc", "/usr"):
        assert run("touch", f"{place}/new").returncode != 0, f"{place} can be written to"
    refused = run(program, *json.loads(last("CMD")))
    assert refused.returncode == 2, refused
    assert "there is no API key" in refused.stderr, refused
    key = run(program, "keys", "create", "--role", "admin").stdout.split()[-1]
    for turn in range(2):
        server = subprocess.Popen(
            as_user(program, *json.loads(last("CMD"))), cwd=last("WORKDIR"), env=environment()
        )
        deadline = time.monotonic() + START_S
        while run(*health).returncode != 0:
            assert server.poll() is None, "the service has ended"
            assert time.monotonic() < deadline, run(*health)
            time.sleep(0.2)
        if turn == 0:
            ask(key, "callers/amara/voiceprints", audio[0])
        answer = ask(key, "identify", audio[1])
        assert (answer["verdict"], answer["caller_id"]) == ("accepted", "amara"), answer
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) in (0, -signal.SIGTERM)
    assert run(*health).returncode == 1
    print("The container's lines work: read-only, as a user without rights, with its data in the volume.")


def ask(key: str, path: str, body: bytes) -> dict[str, object]:
    """The answer of the service to audio."""
    port = last("EXPOSE")
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/galleries/default/{path}", body, {"X-API-Key": key}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        found: dict[str, object] = json.load(answer)
        return found


def mount(*arguments: str) -> None:
    """Mount as the command of this name does."""
    subprocess.run(["mount", *arguments], check=True)


def loopback_up() -> None:
    """Bring up `lo`, which is down in a new network namespace."""
    up_and_running, set_flags = 0x1 | 0x40, 0x8914  # IFF_UP and IFF_RUNNING; SIOCSIFFLAGS
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, set_flags, struct.pack("16sh14x", b"lo", up_and_running))


if __name__ == "__main__":
    if sys.argv[1:2] == ["inside"]:
        inside(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        sys.exit(main())
