"""Limits per node and per connection: the settings, the rate limiter, and the queue of a slow client."""
