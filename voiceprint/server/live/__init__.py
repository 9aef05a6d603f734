"""Live calls: audio comes in over websockets and sockets, in the formats of telephony platforms.

A `Conversation` reads a format, a `LiveCall` identifies its caller while it lasts, and `LiveCalls` holds all
calls of a worker. docs/live-calls.md explains the formats.
"""
