"""`voiceprint spaces`."""

from __future__ import annotations

from voiceprint.cli.common import (
    CreateOption,
    JsonOption,
    StoreOption,
    open_recognizer,
    percent,
    plural,
    print_json,
    print_lines,
    spinner,
    table,
)

_USES = {"primary": "VOICE_ENCODER", "secondary": "VOICE_ENCODER_SECONDARY", None: ""}


def spaces(store: StoreOption = None, create: CreateOption = False, as_json: JsonOption = False) -> None:
    """Show how many callers have voiceprints of each encoder: where a move to another encoder stands.

    Only this: callers with no voiceprint of another encoder. Use: the setting that names this encoder.
    """
    with open_recognizer(store, create=create) as recognizer:
        with spinner("Counting"):
            found = recognizer.spaces()
            callers = recognizer.storage.count_callers()
        location = recognizer.storage.location
    if as_json:
        print_json([space.model_dump() for space in found])
        return
    rows = [
        (
            space.encoder,
            space.dimension,
            f"{space.voiceprints:,}",
            f"{space.callers:,}",
            percent(space.share),
            f"{space.only:,}",
            _USES[space.use],
        )
        for space in found
    ]
    numbers = ("Dimension", "Voiceprints", "Callers", "Share", "Only this")
    table("Encoder", *numbers, "Use", rows=rows, right=numbers)
    print_lines("", f"{plural(callers, 'caller')} in {location}")
