"""The cost of encryption at rest, against a plain store in the same run.

    python -m benchmarks.encryption [--rows 100000] [--folder FOLDER]

Two SQLite stores of the same random voiceprints, one a caller, the second encrypted: the bulk import, a scan
of all embeddings (which builds an index at the start of a process), durable single saves, a look-up by id,
and the read of 50 callers by a match. Operations run in turns in one process, and each figure has the ratio
to the plain store. Import and scan are in CPU seconds of this process, which other load does not change. Then
the times to encrypt a plain store in place, and to bring all data keys under another master key.
"""

from __future__ import annotations

import base64
import secrets
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.measure import in_turns, spread_ms, timed
from benchmarks.report import command_line, write
from voiceprint import SQLiteStorage, Storage, Voiceprint
from voiceprint.privacy.encryption import Encryption, KeyRing
from voiceprint.privacy.encryption.conversion import encrypt_store, rotate
from voiceprint.privacy.encryption.keys import VariableKeys

CALLS = 300  # of each operation
BLOCK = 10_000
TOGETHER = 50  # callers that a match reads


def main() -> int:
    """Measure, print a table, write the raw figures."""
    parser = command_line(__doc__)
    parser.add_argument("--rows", type=int, default=100_000, help="voiceprints in each store")
    parser.add_argument("--folder", type=Path, help="folder for the stores")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        figures = measure(Path(folder), arguments.rows)
    show(figures)
    write("encryption", figures, arguments.results)
    return 0


def keys(*texts: str) -> Encryption:
    """An encryption under master keys in Base64."""
    return Encryption(KeyRing(VariableKeys(" ".join(texts))))


def measure(folder: Path, rows: int) -> dict[str, Any]:
    """All figures; times in milliseconds, those of whole stores in seconds."""
    old, new = (base64.b64encode(secrets.token_bytes(32)).decode() for _ in range(2))
    stores: dict[str, Storage] = {
        "plain": SQLiteStorage(folder / "plain.db"),
        "encrypted": SQLiteStorage(folder / "encrypted.db", encryption=keys(old)),
    }
    figures: dict[str, Any] = {"rows": rows, "import_s": {}, "scan_s": {}, "calls_ms": {}, "bytes": {}}
    for name, storage in stores.items():
        figures["import_s"][name] = timed(partial(fill, storage, rows), time.process_time)
        figures["scan_s"][name] = min(timed(partial(scan, storage), time.process_time) for _ in range(3))
    for operation, work in operations(rows).items():
        times = in_turns({name: work(storage) for name, storage in stores.items()}, rounds=CALLS)
        figures["calls_ms"][operation] = {name: spread_ms(seconds) for name, seconds in times.items()}
    for name, storage in stores.items():
        storage.close()
        figures["bytes"][name] = (folder / f"{name}.db").stat().st_size
    with SQLiteStorage(folder / "plain.db", encryption=keys(old)) as storage:
        figures["encrypt_s"] = timed(lambda: encrypt_store(storage))
    with SQLiteStorage(folder / "encrypted.db", encryption=keys(new, old)) as storage:
        figures["rotate_s"] = timed(lambda: rotate(storage))
    return figures


def fill(storage: Storage, rows: int) -> None:
    """Save random voiceprints, a block in one transaction."""
    generator = np.random.default_rng(0)
    for start in range(0, rows, BLOCK):
        vectors = generator.standard_normal((min(BLOCK, rows - start), 256), dtype=np.float32)
        storage.save_many(
            Voiceprint(f"caller {start + row:08}", vector, {"name": "somebody"})
            for row, vector in enumerate(vectors)
        )


def scan(storage: Storage) -> int:
    """Read all embeddings; gives their number."""
    return sum(len(ids) for ids, _ in storage.scan())


def operations(rows: int) -> dict[str, Callable[[Storage], Callable[[], object]]]:
    """The operations of a call, each of a store."""

    def save(storage: Storage) -> Callable[[], object]:
        generator, numbers = np.random.default_rng(1), iter(range(10**9))
        vector = generator.standard_normal(256, dtype=np.float32)
        return lambda: storage.save(Voiceprint(f"new {next(numbers)}", vector, {"name": "somebody"}))

    def get(storage: Storage) -> Callable[[], object]:
        generator = np.random.default_rng(2)
        return lambda: storage.get(f"caller {generator.integers(rows):08}")

    def read(storage: Storage) -> Callable[[], object]:
        generator = np.random.default_rng(3)
        return lambda: storage.callers_of((generator.integers(rows, size=TOGETHER) + 1).tolist())

    return {"save": save, "get": get, f"read {TOGETHER} callers": read}


def show(figures: dict[str, Any]) -> None:
    """Print the figures as a table."""
    table = Table(title=f"{figures['rows']:,} voiceprints in SQLite, one a caller")
    for column in ("", "plain", "encrypted", "ratio"):
        table.add_column(column, justify="right" if column else "left")

    def row(label: str, plain: float, encrypted: float, unit: str) -> None:
        table.add_row(label, f"{plain:.3g} {unit}", f"{encrypted:.3g} {unit}", f"{encrypted / plain:.2f}")

    row("import, CPU", *figures["import_s"].values(), "s")
    row("scan, CPU", *figures["scan_s"].values(), "s")
    for operation, times in figures["calls_ms"].items():
        row(f"{operation}, p50", *(each["p50"] for each in times.values()), "ms")
    row("file", *(size / 1e6 for size in figures["bytes"].values()), "MB")
    Console().print(table)
    print(f"encrypt in place {figures['encrypt_s']:.1f} s, rotate {figures['rotate_s']:.1f} s")


if __name__ == "__main__":
    sys.exit(main())
