"""Audio in: buffers and files made mono, speech found, quality scored."""
