"""Requests of the application to clients, and the replies of the clients."""
