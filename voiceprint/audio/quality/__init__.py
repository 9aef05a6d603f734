"""The quality of audio for speaker recognition: measures, one score, and advice."""
