"""mlcore's tracking server: stores and files over HTTP."""

from mlcore_server.routing import Actor, Declined, Route

__all__ = ["Actor", "Declined", "Route"]
