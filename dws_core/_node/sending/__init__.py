"""From a message to the sockets: encoding, batching, and back-pressure."""
