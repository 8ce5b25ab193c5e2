"""The broker that needs no server: logs in the memory of one process."""
