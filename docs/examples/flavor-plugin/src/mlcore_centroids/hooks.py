"""What this package brings to mlcore; nothing is imported before it is asked for."""

from mlcore.hookspecs import FlavorProvider


def mlcore_flavors():
    """Provide the flavor of models whose class is, or derives from, ``centroids.Centroids``."""
    types = ("centroids.Centroids",)
    return [FlavorProvider("centroids", "mlcore_centroids.flavor:CentroidsFlavor", "nearest centroids", types=types)]
