"""The conformance suite for brokers, in parts."""
