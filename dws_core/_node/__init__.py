"""The node: one manager, its connections and their way to the broker."""
