"""The `voiceprint` command: each subcommand reads its arguments, makes one library call and shows the result.

Exit codes: 0 for success; 1 when the answer is a "no" (a stranger, verification rejected, not enrolled, audio
that is too poor, a finding of `check`); 2 for an error (bad arguments, an unusable store or setting).
As usual 130 after Ctrl-C, and 141 where the reader of the output is gone.
"""

from __future__ import annotations

import sys
import traceback
from typing import Any

import typer

from voiceprint.cli.app import app
from voiceprint.cli.common import complain
from voiceprint.cli.terminal import drop_output, prepare_streams, warnings_shown
from voiceprint.errors import AudioQualityError, CallerNotFoundError, VoiceprintError

__all__ = ["app", "main"]

NO, ERROR, INTERRUPTED, NOBODY_READS = 1, 2, 130, 141

# Typer brings its own Click, or uses the one that is installed.
_UsageError: Any = typer.BadParameter.__bases__[0]


def main() -> None:
    """Run the command line, showing the library's errors as one line on standard error."""
    prepare_streams()
    try:
        with warnings_shown():
            code = _run()
        sys.stdout.flush()
    except BrokenPipeError:  # as by `| head`: it has read what it wanted
        drop_output()
        code = NOBODY_READS
    except OSError as error:  # such as a full disk behind `>`
        complain(f"Error: {error}")
        drop_output()
        code = ERROR
    raise SystemExit(code)


def _run() -> int:
    command = typer.main.get_command(app)
    try:
        # Not by `app()`, which takes a pipe that nobody reads, and Ctrl-C, for a "no".
        with command.make_context("voiceprint", sys.argv[1:]) as context:
            command.invoke(context)
    except typer.Exit as end:
        return end.exit_code
    except (CallerNotFoundError, AudioQualityError) as error:  # an answer, and not an error
        complain(str(error))
        return NO
    except VoiceprintError as error:
        complain(f"Error: {error}")
        return ERROR
    except typer.Abort as error:  # a question that was answered by Ctrl-C, or by the end of the input
        return INTERRUPTED if isinstance(error.__context__, KeyboardInterrupt) else NO
    except KeyboardInterrupt:
        return INTERRUPTED
    except EOFError:  # a question to which there is no answer
        return NO
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001  of the command line, or a fault of the program: neither is a "no"
        _explain(error)
        return ERROR
    return 0


def _explain(error: Exception) -> None:
    if not isinstance(error, _UsageError):
        for line in traceback.format_exc().splitlines():
            complain(line)
    elif type(error).__name__ != "NoArgsIsHelpError":  # whose help was shown
        context = getattr(error, "ctx", None)
        for line in context.get_usage().splitlines() if context is not None else []:
            complain(line)
        complain(f"Error: {getattr(error, 'format_message', error.__str__)()}")
