"""Privacy: proof that a deleted caller is gone."""
