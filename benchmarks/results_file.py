"""How the benchmarks keep their results: JSON, with what is needed to compare them later."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
_PACKAGES = ("numpy", "scipy", "torch", "resemblyzer", "faiss-cpu", "onnxruntime", "soxr", "orjson")


def keep(
    name: str, figures: dict[str, Any], *, packages: tuple[str, ...] = (), folder: Path = RESULTS
) -> Path:
    """Write `figures` to results/NAME.json, stamped with commit, time, CPU and versions.

    packages: others than the product's own, that may be absent. folder: in place of results.
    """
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    stamp = {
        "benchmark": name,
        "commit": commit.stdout.strip() or "unknown",
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "cpu": _cpu(),
        "python": platform.python_version(),
        "packages": {package: _version(package) for package in (*_PACKAGES, *packages)},
    }
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(stamp | figures, indent=1) + "\n")
    return path


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown"
    )
