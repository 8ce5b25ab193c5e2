"""Failures on demand: a broker wrapper with switches, and the faults a plugin's tests provide."""
