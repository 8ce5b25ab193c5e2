"""The I/O of a stream broker: the loop around the state machines of `dws_core._log.stream`."""
