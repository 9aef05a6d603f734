"""Check the slim install: Resemblyzer's answers, without torch, librosa and what else that package needs.

.venv-slim/bin/python tests/slim_install.py      in the environment of `make slim`
"""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np

import voiceprint
from voiceprint.encoder import default_encoder

TESTS = Path(__file__).resolve().parent
SAMPLES = TESTS.parent / "examples/voices"

ABSENT = ("librosa", "llvmlite", "numba", "scipy", "sklearn", "torch")
# Imported where VOICE_ENCODER asks for them, and for PostgreSQL, plots, MP4 and the like, dask and Parquet.
OPTIONAL = {"av", "cryptography", "kaldi_native_fbank", "matplotlib", "psycopg", "resemblyzer"}
OPTIONAL |= {"distributed", "fsspec", "pgvector", "pyarrow", "sherpa_onnx", "torch"}
# By the service and its client.
OPTIONAL |= {
    "fastapi",
    "h11",
    "httpx",
    "jinja2",
    "markupsafe",
    "prometheus_client",
    "python_multipart",
    "starlette",
    "threadpoolctl",
    "uvicorn",
}
OPTIONAL |= {"websockets"}
if sys.version_info >= (3, 11):
    OPTIONAL |= {"tomli"}  # tomllib for Python 3.10
MOST_MB = 500
LEAST_COSINE = 0.9999


def main() -> None:
    """Check what is there, what it takes on the disk, and what it answers."""
    there = [name for name in ABSENT if importlib.util.find_spec(name)]
    assert not there, (
        f"{', '.join(there)} came in, which the slim install is to do without: something in "
        "requirements-slim.txt depends on it, or it was added by hand. Make the environment anew"
    )
    missing = [name for name in sorted(imported() - OPTIONAL) if importlib.util.find_spec(name) is None]
    assert not missing, (
        f"the package imports {', '.join(missing)}, not installed here: add it to requirements-slim.txt, or "
        "to OPTIONAL in this script if it is imported only where it is asked for"
    )

    size = megabytes(Path(sys.prefix))
    assert size < MOST_MB, (
        f"the environment takes {size:.0f} MB, {MOST_MB} are allowed: "
        f"see what is large by `du -m {sys.prefix}`"
    )

    lowest = min(cosines())
    assert lowest >= LEAST_COSINE, (
        f"an embedding differs from tests/golden/sample-voices.npz: cosine {lowest:.6f}, and "
        f"{LEAST_COSINE} is the least. Compare the versions here with those of constraints.txt"
    )
    assert "resemblyzer" not in sys.modules, (
        "embedding has imported resemblyzer, which needs torch: only its file of weights is to be read"
    )

    command = Path(sys.executable).with_name("voiceprint")
    demo = subprocess.run([command, "demo", "--voices", SAMPLES], capture_output=True, text=True, check=False)
    assert demo.returncode == 0, (
        f"`voiceprint demo` ended with {demo.returncode}:\n{demo.stdout}{demo.stderr}"
    )
    print(
        f"The slim install works: {size:.0f} MB, cosine with Resemblyzer at least {lowest:.6f}, demo right."
    )


def imported() -> set[str]:
    """The first parts of the names that the package's sources import, at their top or when needed."""
    specs = [importlib.util.find_spec(f"voiceprint{part}") for part in ("", ".index", ".migrations")]
    folders = {Path(place) for spec in specs if spec for place in spec.submodule_search_locations or ()}
    assert len(folders) == len(specs), (
        f"of voiceprint, voiceprint.index and voiceprint.migrations only {len(folders)} are found: install "
        "the checkout again, `pip install --no-deps --editable .`"
    )
    sources = {source for folder in folders for source in folder.rglob("*.py")}
    names = set()
    for source in sources:
        for found in ast.walk(ast.parse(source.read_text())):
            if isinstance(found, ast.Import):
                names |= {alias.name for alias in found.names}
            elif isinstance(found, ast.ImportFrom) and found.module and not found.level:
                names.add(found.module)
    return {name.partition(".")[0] for name in names}


def megabytes(folder: Path) -> float:
    """The space on the disk of the files in a folder; links are not followed."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*")) / 1e6


def cosines() -> list[float]:
    """The cosines of the embeddings of the sample voices with those that Resemblyzer gave."""
    encoder = default_encoder()
    with np.load(TESTS / "golden/sample-voices.npz") as expected:
        assert len(expected) > 30, (
            f"tests/golden/sample-voices.npz holds {len(expected)} embeddings: restore it"
        )
        return [
            float(encoder.embed(voiceprint.load_audio(SAMPLES / name)[0]) @ expected[name])
            for name in expected
        ]


if __name__ == "__main__":
    main()
