"""The parts of a recording that are speech."""
