"""The I/O of a stream broker: the loop around the state machines of `dws_core._log.stream`.

Only this folder uses the event loop, and nothing outside imports from it, except for the public modules.
"""
