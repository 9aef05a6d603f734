"""`python -m voiceprint` is the `voiceprint` command."""

from __future__ import annotations

from voiceprint.cli import main

if __name__ == "__main__":
    main()
