"""`StreamLogBroker`: a `LogBroker` for brokers that keep one append-only stream per partition.

The decisions are in state machines without I/O and without a clock: `envelope`, `publishing`, `dedupe`, `epochs`,
`tail`, `lookback`, `index`, `reading` and `partition_log`. `session` and `broker` do the I/O around them.
"""
