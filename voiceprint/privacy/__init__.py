"""Privacy: proof of the erasure of a deleted caller."""
