"""Audio input: buffers, encodings and files, and mono audio of any length."""
