"""Which scoring finds a caller through a telephone? All that were tried, on speakers not fitted to.

    python benchmarks/robust_scoring.py FOLDER      FOLDER/**/SPEAKER/*.flac or .wav

A caller is enrolled from one piece of 5 s and probed with another. Half of the speakers are fitted to,
the other half is enrolled and probed, and then the reverse, for several halvings. FNIR is at the FPIR of
5 %, each probe's strangers being all callers but its own. The lines that are fitted to are drawn by chance
(lines.py); those that are measured are `voiceprint.audio.conditions`.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

import numpy as np
from alternatives_table import alternatives
from calibrated_rates import calibration, rates
from generated_galleries import generated
from held_out import HALVINGS, pieces_of
from results_file import keep
from scoring_pieces import all_pieces
from several_prints import several_prints


def main() -> int:
    """Embed, compare, calibrate, and keep the figures."""
    pieces = pieces_of(__doc__, all_pieces)
    figures: dict[str, Any] = {
        "pieces": len(pieces.speakers),
        "speakers": len(np.unique(pieces.speakers)),
        "halvings": HALVINGS,
        "alternatives": alternatives(pieces),
        "several_prints": several_prints(pieces),
        "calibration": calibration(pieces),
        "fpir": rates(pieces),
    }
    figures |= generated(pieces)
    print(f"\nRaw figures: benchmarks/results/{keep('robust-scoring', figures).name}")
    return 0


if __name__ == "__main__":
    warnings.simplefilter("error")
    sys.exit(main())
