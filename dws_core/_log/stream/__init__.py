"""The base class for brokers that keep one append-only stream per partition.

Internal: not in `dws_core.plugin` yet, and the contract of a wire may still change. The broker suite runs on an in-memory
wire (`tests/support/streams.py`), and a simulation with a virtual clock injects faults by seed (`tests/simulation`).
"""
