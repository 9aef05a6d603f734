"""Audio in: buffers, encodings and files, and mono audio of any length at 16 kHz."""
