"""Save and load models of `centroids` with mlcore."""
