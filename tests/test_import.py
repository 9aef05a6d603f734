"""`import voiceprint` brings in little, and leaves the rest for later."""

from __future__ import annotations

from types import ModuleType

from processes import python

import voiceprint

HEAVY = (
    "alembic", "av", "faiss", "librosa", "matplotlib", "numba", "redis", "resemblyzer", "scipy", "soundfile",
    "soxr", "sqlalchemy", "torch", "webrtcvad",
)  # fmt: skip


def test_the_import_loads_nothing_that_is_slow() -> None:
    code = f"import voiceprint, sys; print([name for name in {HEAVY} if name in sys.modules])"
    assert python(code) == "[]\n"


def test_the_import_of_the_command_leaves_what_measures_for_later() -> None:
    code = "import voiceprint, voiceprint.cli.app, sys; print([n for n in sys.modules if 'evaluation.' in n])"
    assert python(code) == "[]\n"


def test_what_measures_loads_nothing_that_is_slow() -> None:
    code = f"import voiceprint.evaluation, sys; print([name for name in {HEAVY} if name in sys.modules])"
    assert python(code) == "[]\n"


def test_making_a_recognizer_and_a_store_loads_nothing_that_is_slow() -> None:
    code = (
        "import sys, voiceprint as v; r = v.OpusAgentVoiceRecognizer(v.MemoryStorage());"
        "r.get_caller('a'); r.encoder.dimension;"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    assert python(code) == "[]\n"


def test_the_list_of_names_is_sorted_and_is_what_the_package_shows() -> None:
    assert voiceprint.__all__ == sorted(voiceprint.__all__)
    public = {
        name
        for name, value in vars(voiceprint).items()
        if not name.startswith("_") and not isinstance(value, ModuleType) and name != "annotations"
    }
    assert set(voiceprint.__all__) == public | {"__version__"}


def test_every_public_name_comes_with_a_star() -> None:
    assert python(
        "from voiceprint import *; import voiceprint; print(set(voiceprint.__all__) - set(globals()))"
    ) == ("set()\n")
