"""The `voiceprint` command: each subcommand parses arguments, calls the library once and prints the result.

Exit codes: 0 for success; 1 when the answer is a "no" (a stranger, verification rejected, not enrolled, audio
that is too poor, a finding of `check`); 2 for an error (bad arguments, an unusable store or setting); 130
after Ctrl-C; 141 when the reader of the output is closed.
"""

from __future__ import annotations

import os
import pwd
import sys
import traceback
from typing import Any

import typer

from voiceprint._audited import acting_as
from voiceprint.cli.app import app
from voiceprint.cli.common import print_error
from voiceprint.cli.terminal import drop_output, prepare_streams, warnings_shown
from voiceprint.errors import AudioQualityError, CallerNotFoundError, VoiceprintError

__all__ = ["app", "main"]

NO, ERROR, INTERRUPTED, BROKEN_PIPE = 1, 2, 130, 141

# Typer uses the installed Click, or its own copy.
_UsageError: Any = typer.BadParameter.__bases__[0]


def main() -> None:
    """Run the command line; errors of the library are one line on standard error."""
    prepare_streams()
    try:
        with warnings_shown():
            code = _run()
        sys.stdout.flush()
    except BrokenPipeError:  # as by `| head`
        drop_output()
        code = BROKEN_PIPE
    except OSError as error:  # such as a full disk behind `>`
        print_error(f"Error: {error}")
        drop_output()
        code = ERROR
    raise SystemExit(code)


def _run() -> int:
    command = typer.main.get_command(app)
    try:
        # Not `app()`, which exits with 1 on a broken pipe and on Ctrl-C.
        with command.make_context("voiceprint", sys.argv[1:]) as context, acting_as(_user):
            command.invoke(context)
    except typer.Exit as end:
        return end.exit_code
    except (CallerNotFoundError, AudioQualityError) as error:  # an answer, and not an error
        print_error(str(error))
        return NO
    except VoiceprintError as error:
        print_error(f"Error: {error}")
        return ERROR
    except typer.Abort as error:  # Ctrl-C, or the end of the input, at a question
        return INTERRUPTED if isinstance(error.__context__, KeyboardInterrupt) else NO
    except KeyboardInterrupt:
        return INTERRUPTED
    except EOFError:  # the end of the input at a question
        return NO
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001  wrong usage, or a fault of the program: neither is a "no"
        _print_failure(error)
        return ERROR
    return 0


def _user() -> str:
    """The user of the process, as the actor in the audit log."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a number without a name, as in a container
        return f"user {os.getuid()}"


def _print_failure(error: Exception) -> None:
    if not isinstance(error, _UsageError):
        for line in traceback.format_exc().splitlines():
            print_error(line)
    elif type(error).__name__ != "NoArgsIsHelpError":  # Click has printed the help
        context = getattr(error, "ctx", None)
        for line in context.get_usage().splitlines() if context is not None else []:
            print_error(line)
        print_error(f"Error: {getattr(error, 'format_message', error.__str__)()}")
