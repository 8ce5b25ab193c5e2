"""Servers and clients for tests of applications."""
