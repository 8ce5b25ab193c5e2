"""Client requests: validation, authorization, and the actions they trigger."""
