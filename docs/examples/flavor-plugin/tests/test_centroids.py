from centroids import Centroids
from mlcore.testing import FlavorContract


class TestCentroids(FlavorContract):
    flavor = "centroids"

    def model_and_data(self):
        points = [[0.0, 0.0], [0.0, 1.0], [5.0, 5.0], [6.0, 5.0]]
        return Centroids().fit(points, ["low", "low", "high", "high"]), [[1.0, 1.0], [4.5, 7.25]]
