"""`voiceprint galleries list`."""

from __future__ import annotations

import typer

from voiceprint.cli.common import JsonOption, print_json, table
from voiceprint.cli.gallery_options import ConfigOption, open_galleries
from voiceprint.storage.urls import configured_location

app = typer.Typer(help="Show the galleries of a deployment.", no_args_is_help=True)


@app.command("list")
def list_galleries(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the galleries that a file names, with their stores, and check the file.

    No store is opened. All secrets that the file refers to must be there.
    """
    with open_galleries(config) as galleries:
        settings = {name: galleries.config(name) for name in galleries}
    rows = [(name, configured_location(one), one.encoder) for name, one in settings.items()]
    if as_json:
        print_json([dict(zip(("gallery", "store", "encoder"), row, strict=True)) for row in rows])
    else:
        table("Gallery", "Store", "Encoder", rows=rows)
