"""`voiceprint index status | rebuild | tune | export | import`."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from voiceprint.cli.common import (
    CreateOption,
    JsonOption,
    StoreOption,
    counter,
    open_recognizer,
    paragraph,
    plural,
    print_json,
    print_lines,
    spinner,
    table,
    warn_of_other_spaces,
)

if TYPE_CHECKING:
    from voiceprint.index import IndexStatus
    from voiceprint.models import SnapshotStatus
    from voiceprint.recognizer import OpusAgentVoiceRecognizer

_STATES = {
    "off": "no snapshot is kept",
    "not_written": "not written yet",
    "current": "current",
    "outdated": "older than a removal: built anew at the next use",
    "unusable": "damaged, or of another store or version: built anew at the next use",
}

app = typer.Typer(help="Manage the index of a store.", no_args_is_help=True)


@app.command("status")
def status(store: StoreOption = None, create: CreateOption = False, as_json: JsonOption = False) -> None:
    """Show the search structure of the index, and the snapshot of each encoder's index."""
    with open_recognizer(store, create=create) as recognizer:
        with counter("Building the index") as progress:
            now = recognizer.index_status(progress=progress)
        _print_status(recognizer, now, as_json)


@app.command("rebuild")
def rebuild(store: StoreOption = None, create: CreateOption = False, as_json: JsonOption = False) -> None:
    """Rebuild the index from the store, train it, and write its snapshot."""
    with open_recognizer(store, create=create) as recognizer:
        with counter("Building the index") as progress:
            now = recognizer.rebuild_index(progress=progress)
        _print_status(recognizer, now, as_json)


@app.command("tune")
def tune(
    recall: Annotated[
        float | None,
        typer.Option(
            min=0.01, max=1, help="Target recall. Default: VOICE_INDEX_RECALL, the target of recognizers."
        ),
    ] = None,
    store: StoreOption = None,
    create: CreateOption = False,
    as_json: JsonOption = False,
) -> None:
    """Tune the search effort to a target recall, and write the snapshot."""
    with open_recognizer(store, create=create) as recognizer:
        with counter("Building the index") as progress:
            recognizer.index_status(progress=progress)
        with spinner("Measuring"):
            now = recognizer.tune_index(recall)
        _print_status(recognizer, now, as_json)


@app.command("export")
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file; it replaces an earlier one.")],
    store: StoreOption = None,
    create: CreateOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write the index to a file, from which another machine starts without building it.

    The file holds biometric data, and only its owner can read it. Remove it once it is imported: the deletion
    of a caller does not reach it.
    """
    with open_recognizer(store, create=create) as recognizer:
        with counter("Building the index") as progress:
            recognizer.index_status(progress=progress)
        with spinner("Writing"):
            status = recognizer.export_index(file)
    if as_json:
        print_json(asdict(status) | {"file": str(file), "file_bytes": file.stat().st_size})
    else:
        print_lines(
            f"Exported the index of {plural(status.vectors, 'voiceprint')} to {file} "
            f"({file.stat().st_size / 1e6:,.1f} MB). Remove it once it is imported."
        )


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Of `voiceprint index export`.")],
    store: StoreOption = None,
    create: CreateOption = False,
    as_json: JsonOption = False,
) -> None:
    """Start from an exported index of the same store: check it, apply the changes since, write the snapshot.

    Before `voiceprint serve` on a new machine, which then reads the snapshot.
    """
    with open_recognizer(store, create=create) as recognizer:
        with spinner("Reading"):
            now = recognizer.import_index(file)
        _print_status(recognizer, now, as_json)


def _print_status(recognizer: OpusAgentVoiceRecognizer, status: IndexStatus, as_json: bool) -> None:
    path = recognizer.snapshot_path()
    size = None
    with suppress(OSError):  # not written yet, or not accessible
        size = None if path is None else path.stat().st_size
    warn_of_other_spaces(recognizer)
    spaces = recognizer.snapshots()
    if as_json:
        print_json(
            asdict(status)
            | {"snapshot": None if path is None else str(path), "snapshot_bytes": size}
            | {"spaces": [space.model_dump() for space in spaces]}
        )
        return
    rows: list[tuple[str, str]] = [
        ("Store", recognizer.storage.location),
        ("Voiceprints", f"{status.vectors:,}"),
    ]
    if status.structure == "exact":
        rows.append(("Search", "every voiceprint is compared"))
    elif status.structure == "hnsw":
        rows += [
            ("Search", f"by a graph, keeping {status.ef_search or 200} voiceprints"),
            ("Compared exactly", f"{status.buffered:,} recent changes"),
            (
                "Recall",
                f"{status.recall:.3f} measured, target {status.recall_target:g}"
                if status.recall
                else f"not measured yet, target {status.recall_target:g}",
            ),
            ("Tuned on", f"{status.trained_on:,} voiceprints"),
        ]
    else:
        share = 100 * status.nprobe / status.nlist
        rows += [
            ("Search", f"{status.nprobe:,} of {status.nlist:,} lists ({share:.0f} %)"),
            ("Compared exactly", f"{status.rerank_k} candidates and {status.buffered:,} recent voiceprints"),
            ("Recall", f"{status.recall:.3f} measured, target {status.recall_target:g}"),
            ("Trained on", f"{status.trained_on:,} voiceprints"),
        ]
    if status.training:
        rows.append(("Training", "under way"))
    if status.engine == "pgvector":
        rows.append(("Kept in", ", ".join(sorted(recognizer.storage.index_servers))))
        rows.append(("Waiting for VACUUM", f"{status.dead:,} removed voiceprints"))
    else:
        rows.append(("Snapshot", _describe_snapshot(path, size)))
    rows.insert(1, ("Encoder", recognizer.encoder.name))
    table("Index", "", rows=rows)
    if len(spaces) > 1:
        print_lines("")
        table(
            "Encoder",
            "Voiceprints",
            "Snapshot",
            "State",
            rows=[
                (space.encoder, f"{space.voiceprints:,}", space.path or "none", _describe_state(space))
                for space in spaces
            ],
            right=("Voiceprints",),
        )
    if status.reason:
        print_lines("")
        paragraph(f"Every voiceprint is compared: {status.reason}.")


def _describe_snapshot(path: Path | None, size: int | None) -> str:
    if path is None:
        return "none"
    return f"{path} ({size / 1e6:,.1f} MB)" if size is not None else f"{path} (not written yet)"


def _describe_state(snapshot: SnapshotStatus) -> str:
    if snapshot.state == "behind":
        return f"{snapshot.changes:,} changes behind: applied at the next use"
    return _STATES[snapshot.state]
