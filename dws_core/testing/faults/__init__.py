"""Faults on demand: a broker that fails on command, and the faults that a plugin's tests provide."""
