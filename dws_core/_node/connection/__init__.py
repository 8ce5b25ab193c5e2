"""One client connection: handshake, reading, filters, and the end of its handler."""
