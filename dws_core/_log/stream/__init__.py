"""The base class for brokers that keep one append-only stream per partition.

`dws_core.plugin` exports it. The broker suite runs on an in-memory wire (`tests/support/streams.py`), and a simulation
with a virtual clock injects faults by seed (`tests/simulation`).
"""
