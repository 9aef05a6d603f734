"""Scripts that build the files that ship, each run by `python -m tools.NAME` from the root of a checkout."""
