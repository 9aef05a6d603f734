"""How well audio serves speaker recognition: measures, one score, and advice."""
