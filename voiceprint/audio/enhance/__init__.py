"""Repairs of audio before it is embedded: noise reduction, low frequencies, offsets and hum."""
