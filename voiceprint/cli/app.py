"""The command line application."""

from __future__ import annotations

from typing import Annotated

import typer

import voiceprint
from voiceprint.cli import (
    audit,
    backup,
    calibration,
    caller_changes,
    callers,
    consent,
    db,
    demo,
    encryption,
    enroll_csv,
    enrollment,
    evaluation,
    galleries,
    groups,
    identification,
    identify_archive,
    index,
    prompts,
    pruning,
    server,
    spaces,
    transfer,
    upkeep,
    voice_id,
)
from voiceprint.cli.gallery_options import add_gallery_options

app = typer.Typer(
    help="Enroll callers by voice, and say who is calling.",
    no_args_is_help=True,
    # Typer's error page would print local variables, such as audio and embeddings.
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _show_version(requested: bool) -> None:
    if requested:
        typer.echo(f"voiceprint {voiceprint.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Enroll callers by voice, and say who is calling."""


app.command("enroll")(enrollment.enroll)
app.command("enroll-dir")(enrollment.enroll_dir)
app.command("enroll-csv")(enroll_csv.enroll_csv)
app.command("reenroll")(enrollment.reenroll)
app.command("identify")(identification.identify)
app.command("identify-archive")(identify_archive.identify_archive)
app.command("verify")(identification.verify)
app.add_typer(callers.app, name="callers")
callers.app.command("find")(caller_changes.find_callers)
callers.app.command("update")(caller_changes.update_caller)
callers.app.command("rename")(caller_changes.rename_caller)
callers.app.command("merge")(caller_changes.merge_callers)
callers.app.command("consent")(consent.set_consent)
callers.app.command("opt-out")(consent.opt_out)
callers.app.command("opt-in")(consent.opt_in)
app.add_typer(groups.app, name="groups")
app.add_typer(consent.retention_app, name="retention")
app.command("export")(transfer.export)
app.command("import")(transfer.import_)
app.command("import-voice-id")(voice_id.import_voice_id)
app.command("copy")(transfer.copy)
app.command("backup")(backup.backup)
app.command("restore")(backup.restore)
app.command("prune")(pruning.prune)
app.command("spaces")(spaces.spaces)
app.command("quality")(upkeep.quality)
app.command("prompts")(prompts.prompts)
app.command("check")(upkeep.check)
app.command("evaluate")(evaluation.evaluate)
app.command("calibrate")(calibration.calibrate)
app.add_typer(index.app, name="index")
app.add_typer(db.app, name="db")
app.add_typer(audit.app, name="audit")
app.add_typer(galleries.app, name="galleries")
app.add_typer(encryption.app, name="encryption")
app.command("demo")(demo.demo)
app.command("demo-server")(demo.demo_server)
app.command("serve")(server.serve)
app.command("health")(server.health)
app.add_typer(server.keys_app, name="keys")
# Not to `evaluate`, whose --gallery is a number of callers: it follows VOICE_GALLERY.
add_gallery_options(app, also=(upkeep.quality,))
