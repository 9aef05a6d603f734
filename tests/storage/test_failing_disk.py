"""A disk that fails at any one write, flush or rename leaves the old state or the new one."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that makes calls fail, compiled."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        told = "there is no C compiler: it is needed to make system calls fail"
        if os.environ.get("CI"):
            pytest.fail(told)
        pytest.skip(told)
    made = tmp_path_factory.mktemp("faults") / "faults.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", made, TESTS / "faults.c", "-ldl"], check=True)
    return made


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="LD_PRELOAD is of Linux")
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO], ids=["full", "broken"])
@pytest.mark.parametrize(("scheme", "least"), [("json", 4), ("sqlite", 4)])
def test_each_failing_call_leaves_the_old_state_or_the_new_one(
    library: Path, tmp_path: Path, scheme: str, least: int, code: int
) -> None:
    done = subprocess.run(
        [sys.executable, TESTS / "failing_disk.py", library, scheme, tmp_path, str(code)],
        env=os.environ | {"LD_PRELOAD": str(library)},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["failed"] >= least, "the calls that a change makes were not seen"
    # Only the last flush comes after the change is in place.
    assert report["kept"] <= 1
