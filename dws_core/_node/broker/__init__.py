"""Choosing a broker, and adapting a plain `BrokerInterface` to the log contract."""
