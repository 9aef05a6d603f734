"""Install the wheel alone, in a new environment outside the checkout, and use it there.

python tests/wheel_alone.py FOLDER      FOLDER holds the wheel
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]

USE = """
import sys
from pathlib import Path
import voiceprint, voiceprint.index, voiceprint.migrations, opusagent.voiceprint
from opusagent.voiceprint.storage import JSONStorage

package = Path(voiceprint.__file__).parent
assert package.is_relative_to(sys.prefix), package
assert (package / "py.typed").is_file()
assert (package / "server/console/templates/base.html").is_file()
assert (package / "server/console/static/console.js").is_file()
assert JSONStorage is voiceprint.JSONStorage
assert opusagent.voiceprint is voiceprint
with voiceprint.SQLiteStorage("callers.db") as storage:
    assert storage.check() == []
"""


def main() -> None:
    """Build the environment, and run the library and the command in it."""
    (wheel,) = Path(sys.argv[1]).resolve().glob("*.whl")
    with tempfile.TemporaryDirectory() as folder:
        venv.create(Path(folder, "env"), with_pip=True)
        binaries = Path(folder, "env", "bin")

        def run(*command: str | Path) -> None:
            subprocess.run([binaries / command[0], *command[1:]], cwd=folder, check=True)

        arguments = ["--quiet", "--no-compile", "--constraint", CHECKOUT / "constraints.txt"]
        run("python", "-m", "pip", "install", *arguments, wheel)
        run("python", "-I", "-c", USE)
        run("voiceprint", "--version")
        run("voiceprint", "demo", "--voices", CHECKOUT / "examples/voices")
    print(f"{wheel.name} works alone.")


if __name__ == "__main__":
    main()
