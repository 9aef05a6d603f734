"""The `voiceprint` command: each subcommand reads its arguments, makes one library call and shows the result.

Exit codes: 0 for success; 1 when the answer is a "no" (verification rejected, a file that could not
be enrolled, a finding of `check`); 2 for an error (bad arguments, an unusable store or setting).
"""

from __future__ import annotations

import sys

from voiceprint.cli.app import app
from voiceprint.errors import VoiceprintError

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line, showing the library's errors as one line on standard error."""
    try:
        app(prog_name="voiceprint")
    except VoiceprintError as error:
        sys.stderr.write(f"Error: {error}\n")
        raise SystemExit(2) from None
