"""Benchmarks that a user runs to compare, each by `python -m benchmarks.NAME` from the root of a checkout."""
