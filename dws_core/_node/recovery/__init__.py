"""Resuming clients: cursors, replays, history, and the records that the node remembers."""
