"""Five versions of four models and some hundred queries of them, with what each finds, worked out by hand.

A version is named by a letter, a model by its own; ``<1>`` in a query stands for the id of a run. `MLFLOW` holds what
MLflow accepts, too, and tests/interop asks MLflow the same; `OURS` what only mlcore knows; `ORDERS` orders, and whether
MLflow knows them.
"""

from __future__ import annotations

import time
from typing import Any

import mlcore
from mlcore.testing import Writer, run_events

RUNS: dict[str, dict[str, Any]] = {
    "1": {"metrics": {"acc": [0.7, 0.9], "loss": [1.0, 0.5]}, "params": {"lr": 0.1, "model": "cnn"}},
    "2": {"metrics": {"acc": [0.8]}, "params": {"lr": 1, "a b": "x y"}},
}
MODELS: dict[str, dict[str, Any]] = {
    "digits": {"tags": {"team": "vision", "a b": "x y"}, "description": "of handwriting"},
    "iris": {"tags": {"team": "Vision"}},
    "Digits": {"tags": {"team": "50%"}},
    "it has no version": {"tags": {}},
}
VERSIONS: dict[str, dict[str, Any]] = {
    "a": {"name": "digits", "run": "1", "source": "s3://models/a", "tags": {"team": "vision", "size": 3}},
    "b": {"name": "digits", "run": "2", "source": "s3://models/b", "tags": {"a b": "x y"}},
    "c": {"name": "digits", "source": "gs://models/c", "tags": {"team": "nlp"}},
    "d": {"name": "iris", "run": "1", "source": "s3://models/a", "tags": {"team": "VISION"}},
    "e": {"name": "Digits", "source": "gs://x/Models/e", "tags": {}},
}
ALIASES = {"champion": "bd", "old": "a"}  # of the model of each
STAGES = {"a": "Archived", "b": "Production", "e": "Staging"}
PENDING = "c"

MLFLOW = {
    "": "abcde",
    "name = 'digits'": "abc",
    'name = "digits"': "abc",
    "name != 'digits'": "de",
    "name LIKE 'dig%'": "abc",
    "name like '%i%s'": "abcde",
    "name ILIKE 'DIG%'": "abce",
    "name LIKE '_ris'": "d",
    "name IN ('digits', 'iris')": "abcd",
    "name IN ('none')": "",
    "name = 'none'": "",
    "version_number = 1": "ade",
    "version_number != 1": "bc",
    "version_number > 1": "bc",
    "version_number >= 2": "bc",
    "version_number < 3": "abde",
    "version_number <= 1": "ade",
    "run_id = '<1>'": "ad",
    "run_id IN ('<1>', '<2>')": "abd",
    "source_path = 's3://models/a'": "ad",
    "source_path LIKE 's3://%'": "abd",
    "source_path ILIKE '%/MODELS/%'": "abcde",
    "source_path != 's3://models/a'": "bce",
    "tags.team = 'vision'": "a",
    "tag.team = 'vision'": "a",
    "tags.team != 'vision'": "cd",
    "tags.team LIKE '%is%'": "a",
    "tags.team ILIKE 'vis%'": "ad",
    "tags.`a b` = 'x y'": "b",
    'tags."a b" = "x y"': "b",
    "tags.size = '3'": "a",
    "tags.none = 'x'": "",
    "name = 'digits' AND version_number > 1": "bc",
    "name = 'digits' and tags.team = 'nlp' and version_number = 3": "c",
    "name ILIKE 'digits' AND source_path LIKE 'gs%'": "ce",
}
OURS = {
    # the model's
    "name not in ('digits')": "de",
    "name not like 'dig%'": "de",
    "name is null": "",
    "name is not null": "abcde",
    "not name = 'digits'": "de",
    "name between 'Digits' and 'e'": "abce",
    "attributes.name = 'iris'": "d",
    # aliases, of which one that fits is enough
    "alias = 'champion'": "bd",
    "alias in ('champion', 'old')": "abd",
    "alias != 'champion'": "a",
    "alias like 'o%'": "a",
    "alias ilike 'CHAMP%'": "bd",
    "alias is null": "ce",
    "alias is not null": "abd",
    "alias = 'none'": "",
    "alias = 'champion' and name = 'digits'": "b",
    # stage and status, also where nobody ever said them
    "stage = 'Production'": "b",
    "stage != 'Production'": "acde",
    "stage = 'None'": "cd",
    "stage in ('None', 'Staging')": "cde",
    "stage is null": "",
    "stage is not null": "abcde",
    "stage ilike 'prod%'": "b",
    "status = 'READY'": "abde",
    "status = 'PENDING'": "c",
    "status != 'FAILED'": "abcde",
    # numbers
    "version = 2": "b",
    "number = 2.0": "b",
    "number in (1, 3)": "acde",
    "latest = true": "cde",
    "latest = false": "ab",
    "latest != true": "ab",
    "latest is not null": "abcde",
    # the run it came from
    "metrics.acc > 0.85": "ad",
    "metrics.acc >= 0.8": "abd",
    "metrics.acc != 0.9": "b",
    "metrics.acc.min = 0.7": "ad",
    "metrics.acc.count = 1": "b",
    "metric.loss < 1": "ad",
    "metrics.loss is null": "bce",
    "metrics.acc is null": "ce",
    "metrics.acc is not null": "abd",
    "not metrics.acc > 0.85": "bce",
    "metrics.acc between 0.75 and 0.85": "b",
    "metrics.none > 0": "",
    "params.lr = 0.1": "ad",
    "params.lr = '0.1'": "ad",
    "params.lr < 2": "abd",
    "params.lr != '1'": "ad",
    "params.model like 'c%'": "ad",
    "params.`a b` = 'x y'": "b",
    "params.model is null": "bce",
    "run_id is null": "ce",
    "metrics.acc > 0.7 and stage = 'Production'": "b",
    "metrics.acc > 0.7 and (stage = 'None' or alias = 'old')": "ad",
    # its own
    "flavor = 'toy'": "abcde",
    "digest like 'sha256:%'": "abcde",
    "description = ''": "abcde",
    "source = 's3://models/b'": "b",
    "tags.size = 3": "a",
    "tags.team is null": "be",
    "parent_version is null": "abcde",
    "created > 0 and creation_timestamp < now + 1d": "abcde",
    "changed >= now - 1d and last_updated_timestamp <= now + 1d": "abcde",
    "deleted = false": "abcde",
    "deleted = true": "",
}
MLFLOW_MODELS = {
    "": ["digits", "iris", "Digits", "it has no version"],
    "name = 'digits'": ["digits"],
    "name != 'digits'": ["iris", "Digits", "it has no version"],
    "name LIKE 'dig%'": ["digits"],
    "name ILIKE 'dig%'": ["digits", "Digits"],
    "name LIKE '% %'": ["it has no version"],
    "name IN ('iris', 'digits')": ["digits", "iris"],
    "tags.team = 'vision'": ["digits"],
    "tag.team != 'vision'": ["iris", "Digits"],
    "tags.team ILIKE 'VISION'": ["digits", "iris"],
    "tags.team LIKE '50%'": ["Digits"],
    "tags.`a b` = 'x y'": ["digits"],
    "name ILIKE 'digits' and tags.team = '50%'": ["Digits"],
}
OUR_MODELS = {
    "aliases.champion is not null": ["digits", "iris"],
    "aliases.champion is null": ["Digits", "it has no version"],
    "alias.champion = 2": ["digits"],
    "aliases.champion = '2'": ["digits"],
    "aliases.champion < 2": ["iris"],
    "aliases.champion in (1, 2)": ["digits", "iris"],
    "not aliases.champion = 2": ["iris", "Digits", "it has no version"],
    "aliases.`old` = 1": ["digits"],
    "aliases.none = 1": [],
    "latest = 3": ["digits"],
    "latest_version >= 1": ["digits", "iris", "Digits"],
    "latest is null": ["it has no version"],
    "latest < 3 and aliases.champion is null": ["Digits"],
    "description = 'of handwriting'": ["digits"],
    "description like '%writing'": ["digits"],
    "tags.team is null": ["it has no version"],
    "name = 'iris' or tags.team = 'vision'": ["digits", "iris"],
    "created > 0 and timestamp < now + 1d and creation_timestamp > -1d": [
        "digits",
        "iris",
        "Digits",
        "it has no version",
    ],
    "deleted = true": [],
}
ORDERS = {
    ("name", "version_number"): ("eabcd", True),
    ("name DESC", "version_number DESC"): ("dcbae", True),
    ("version_number DESC", "name"): ("cbead", True),
    ("creation_timestamp ASC",): ("abcde", True),
    ("creation_timestamp DESC",): ("edcba", True),
    ("metrics.acc desc", "number", "name"): ("adbec", False),
    ("metrics.acc.count", "name", "number"): ("badec", False),
    ("params.lr", "name", "number desc"): ("adbec", False),
    ("params.lr desc", "name desc", "number desc"): ("bdace", False),
    ("latest desc", "name", "number"): ("ecdab", False),
    ("latest", "metrics.loss", "created"): ("abdce", False),
}
MODEL_ORDERS = {
    ("name",): (["Digits", "digits", "iris", "it has no version"], True),
    ("name DESC",): (["it has no version", "iris", "digits", "Digits"], True),
    ("creation_timestamp",): (["digits", "iris", "Digits", "it has no version"], False),
    ("latest desc", "name"): (["digits", "Digits", "iris", "it has no version"], False),
    ("aliases.champion", "created"): (["iris", "digits", "Digits", "it has no version"], False),
    ("aliases.champion desc", "name"): (["digits", "iris", "Digits", "it has no version"], False),
}


def fill(client: mlcore.Client) -> dict[str, str]:
    """Register all this in a store; return the letters of the versions by their ids."""
    home = client.create_experiment("sources").id
    for digit, about in RUNS.items():
        client.store.append(Writer(digit * 32).batch(*run_events(digit * 32, parent=home, **about)))
    registry, made = client.registry, {}
    for name, about in MODELS.items():
        time.sleep(0.002)  # so that each has a time of its own, in ms
        registry.create(name, **about)
    for letter, about in VERSIONS.items():
        time.sleep(0.002)
        run = about["run"] * 32 if "run" in about else None
        told = {"source": about["source"], "run_id": run, "flavor": "toy", "digest": f"sha256:{letter}"}
        made[letter] = registry.add(about["name"], told, tags=about["tags"])
    for alias, letters in ALIASES.items():
        for letter in letters:
            made[letter].model.set_alias(alias, made[letter])
    for letter, stage in STAGES.items():
        made[letter].transition(stage)
    made[PENDING].set_status("PENDING")
    return {version.id: letter for letter, version in made.items()}
