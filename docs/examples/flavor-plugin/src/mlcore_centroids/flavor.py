"""A flavor whose files are data: the means as JSON."""

import json

import centroids
from mlcore.models import Flavor, Saved, file_inside

LOADER = '''"""Load a model for whoever reads MLmodel folders without mlcore."""

import json

import centroids


def _load_pyfunc(path):
    with open(path, encoding="utf-8") as file:
        return centroids.Centroids(json.load(file))
'''


class CentroidsFlavor(Flavor):
    """Save, load and ask `centroids.Centroids`."""

    name = "centroids"

    def save(self, model, folder, *, example=None):
        """Write the means, and a loader for other readers."""
        (folder / "means.json").write_text(json.dumps(list(model.means.items())), encoding="utf-8")
        (folder / "code").mkdir(exist_ok=True)
        (folder / "code" / "centroids_loader.py").write_text(LOADER, encoding="utf-8")
        generic = {"loader_module": "centroids_loader", "data": "means.json"}
        return Saved({"means": "means.json"}, generic, modules=("centroids",))

    def load(self, folder, config, trust):
        """Read the means; they are data, so there is nothing to ask `trust` for."""
        return centroids.Centroids(json.loads(file_inside(folder, config["means"]).read_bytes()))

    def predictor(self, model, config):
        """Predict without parameters."""
        return lambda data, params: model.predict(data)
