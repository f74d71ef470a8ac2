"""Five runs and over two hundred queries of them, with the runs that each finds, worked out by hand.

A run is named by a letter; ``<a>`` in a query stands for the id of that run. `MLFLOW` holds what MLflow accepts, too, and
tests/interop asks MLflow the same; `OURS` what only mlcore knows; `ORDERS` orders, and whether MLflow knows them.
"""

from __future__ import annotations

from typing import Any

T = 1_700_000_000_000  # 2023-11-14T22:13:20Z
HOUR = 3_600_000
RUNS: dict[str, dict[str, Any]] = {
    "a": {
        "name": "alpha", "status": "FINISHED", "start_time": T, "end_time": T + 60_000, "user": "ann",
        "params": {"lr": 0.1, "model": "cnn", "depth": 3, "flag": True, "a b": "x y", "opt.name": "adam"},
        "metrics": {"loss": [1.0, 0.8, 0.5], "acc": [0.9], "val.min": [7.0]},
        "tags": {"team": "vision", "x.y": 1, "key with 'quote": "q"},
        "datasets": [("mnist", "d1", "train"), ("cifar", "d2", "test")],
    },
    "b": {
        "name": "beta", "status": "FAILED", "start_time": T + HOUR, "end_time": T + 3 * HOUR, "user": "bob",
        "params": {"lr": 0.01, "model": "CNN", "depth": 5, "flag": False, "opt.name": "sgd"},
        "metrics": {"loss": [0.25], "acc": [0.8], "val": [2.0, 1.0, 3.0]},
        "tags": {"team": "vision"},
        "datasets": [("mnist", "d1", "train")],
    },
    "c": {
        "name": "gamma", "status": "KILLED", "start_time": T + 2 * HOUR, "end_time": T + 2 * HOUR + 10_000, "user": "ann",
        "params": {"lr": 0.1, "model": "resnet50", "depth": 3},
        "metrics": {"loss": [0.5, 0.9], "acc": [0.9], "a b": [1.0]},
        "tags": {"team": "nlp"},
    },
    "d": {
        "name": "delta", "status": "RUNNING", "start_time": T + 3 * HOUR, "user": "cid",
        "params": {"lr": 1e-05, "model": "it's", "flag": True},
        "metrics": {"acc": [0.7]},
        "tags": {"team": "50%"},
    },
    "e": {
        "name": "Alpha", "status": "FINISHED", "start_time": T + 4 * HOUR, "end_time": T + 4 * HOUR, "user": "ann",
        "params": {"depth": 10},
        "metrics": {"loss": [-1.5]},
        "tags": {},
    },
}  # fmt: skip

MLFLOW = {
    "": "abcde",
    # metrics
    "metrics.loss < 0.5": "be", "metrics.loss <= 0.5": "abe", "metrics.loss = 0.5": "a", "metrics.loss != 0.5": "bce",
    "metrics.loss > 0.5": "c", "metrics.loss >= 0.5": "ac", "metric.loss < 0.5": "be", "metrics.loss<0.5": "be",
    "metrics.loss < -1": "e", "metrics.loss < -1.0": "e", "metrics.loss > -1e-3": "abc", "metrics.loss < 1e3": "abce",
    "metrics.loss = .25": "b", "metrics.loss < 1": "abce", "metrics.loss > 1.": "", "metrics.acc > 0.8": "ac",
    "metrics.`loss` < 0.5": "be", 'metrics."loss" < 0.5': "be", "`metrics`.loss < 0.5": "be", "metrics.'loss' < 0.5": "be",
    "metrics.`a b` = 1": "c", 'metrics."a b" >= 1': "c", "metrics.nothing > 0": "", "metrics.nothing != 0": "",
    "metrics.val = 3": "b", "metrics.`val.min` = 7": "a", 'metrics."val.min" > 6.5': "a", "metrics.`val.min` < 2": "",
    "metrics.acc = 0.9": "ac", "metrics.acc != 0.9": "bd", "metrics.acc > 0.7 AND metrics.loss < 0.5": "b",
    # params are text there, and of any type here
    "params.model = 'cnn'": "a", 'params.model = "cnn"': "a", "params.model != 'cnn'": "bcd", "param.model = 'cnn'": "a",
    "parameter.model = 'cnn'": "a", "parameters.model = 'cnn'": "a", "params.`model` = 'cnn'": "a",
    'params."model" = \'cnn\'': "a", "params.model LIKE 'c%'": "a", "params.model like 'c%'": "a",
    "params.model ILIKE 'c%'": "ab", "params.model ilike 'C_N'": "ab", "params.model LIKE '%n%'": "ac",
    "params.model LIKE 'cn'": "", "params.model LIKE '%'": "abcd", "params.model LIKE 'c__'": "a",
    "params.model LIKE '%50'": "c", "params.model Like \"%net%\"": "c", 'params.model = "it\'s"': "d",
    'params.model LIKE "%\'%"': "d", "params.lr = '0.1'": "ac", "params.lr != '0.1'": "bd", "params.lr = '1e-05'": "d",
    "params.lr LIKE '0.%'": "abc", "params.lr LIKE '%e-%'": "d", "params.lr = '.1'": "", "params.lr = '0.10'": "",
    "params.depth = '3'": "ac", "params.depth != '3'": "be", "params.depth = '3.0'": "", "params.depth LIKE '1_'": "e",
    "params.flag = 'True'": "ad", "params.flag = 'true'": "", "params.flag ilike 'true'": "ad",
    "params.flag != 'True'": "b", "params.`a b` = 'x y'": "a", 'params."a b" = "x y"': "a", "params.opt.name = 'adam'": "a",
    "params.`opt.name` = 'sgd'": "b", "params.opt.name != 'adam'": "b", "params.flag IS NULL": "ce",
    "params.flag IS NOT NULL": "abd", "params.flag is null": "ce", "params.nothing IS NULL": "abcde",
    "params.nothing is not null": "", "params.nothing = ''": "", "params.nothing != 'x'": "", "params.model = ''": "",
    "params.lr = '0.1' and params.depth = '3' and params.flag IS NOT NULL": "a",
    # tags
    "tags.team = 'vision'": "ab", "tag.team = 'vision'": "ab", "tags.team != 'vision'": "cd", "tags.team LIKE '%i%'": "ab",
    "tags.team ILIKE 'NLP'": "c", "tags.team LIKE '50%'": "d", "tags.`team` = 'nlp'": "c", "tags.x.y = '1'": "a",
    "tags.`x.y` = '1'": "a", "tags.x.y LIKE '_'": "a", "tags.team IS NULL": "e", "tags.team IS NOT NULL": "abcd",
    "tags.team IS NULL AND params.depth = '10'": "e", "tags.mlflow.runName = 'alpha'": "a",
    "tags.`mlflow.runName` LIKE '%a'": "abcde", "tags.mlflow.user = 'ann'": "ace", 'tags."mlflow.user" != "ann"': "bd",
    "tags.mlflow.parentRunId IS NULL": "abcde",
    # attributes
    "status = 'FINISHED'": "ae", "attributes.status = 'FINISHED'": "ae", "attribute.status = 'FINISHED'": "ae",
    "attr.status = 'FAILED'": "b", "run.status = 'KILLED'": "c", "attributes.`status` != 'FINISHED'": "bcd",
    "status LIKE 'F%'": "abe", "status ILIKE 'f%'": "abe", "status = 'RUNNING'": "d", "status = 'finished'": "",
    '"status" = "RUNNING"': "d", "`status` = 'RUNNING'": "d", "run_name = 'alpha'": "a", "run_name ILIKE 'alpha'": "ae",
    "attributes.run_name LIKE '%ta'": "bd", "attributes.`run name` = 'beta'": "b", 'attributes."Run name" = \'beta\'': "b",
    "attributes.`Run Name` != 'beta'": "acde", "run_id = '<a>'": "a", "attributes.run_id != '<a>'": "bcde",
    "run_id IN ('<a>', '<c>')": "ac", 'run_id in ("<a>", \'<c>\')': "ac", "run_id IN ('<b>')": "b",
    "run_id NOT IN ('<a>', '<c>')": "bde", "attributes.run_id not in ('<b>')": "acde", "run_id LIKE '<a>%'": "a",
    "user_id = 'ann'": "ace", "attributes.user_id != 'ann'": "bd", "user_id LIKE '%b%'": "b",
    f"start_time > {T}": "bcde", f"start_time >= {T}": "abcde", f"start_time = {T + HOUR}": "b",
    f"attributes.start_time < {T + 2 * HOUR}": "ab", f"attributes.created < {T + 2 * HOUR}": "ab",
    f"Created <= {T + HOUR}": "ab", f"start_time != {T}": "bcde", f"end_time < {T + 2 * HOUR}": "a",
    f"end_time > {T + 2 * HOUR}": "bce", f"end_time != {T + 60_000}": "bce", "start_time > 1.5": "abcde",
    f"start_time > {T} AND start_time < {T + 3 * HOUR}": "bc",
    # datasets: any of a run's
    "dataset.name = 'mnist'": "ab", "datasets.name = 'mnist'": "ab", "dataset.name LIKE 'c%'": "a",
    "dataset.name ILIKE 'MN%'": "ab", "dataset.name != 'mnist'": "a", "dataset.digest = 'd2'": "a",
    "dataset.context = 'train'": "ab", "dataset.context = 'test'": "a", "dataset.name IN ('cifar', 'other')": "a",
    "dataset.name NOT IN ('mnist')": "a", "dataset.digest NOT IN ('d1', 'd2')": "", "datasets.`name` = 'cifar'": "a",
    # and
    "metrics.loss < 1 AND params.lr = '0.1' AND tags.team = 'nlp'": "c", "metrics.loss < 1 and\n  status = 'FAILED'": "b",
    "metrics.loss < 1 And tags.team = 'vision' aNd status = 'FINISHED'": "a",
    " metrics.loss   <   0.5 ": "be", "metrics.loss<0.5 AND metrics.loss>0": "b",
}  # fmt: skip

OURS: dict[str | tuple[Any, ...], str] = {
    # or, not, parentheses
    "status = 'FAILED' or status = 'KILLED'": "bc", "status = 'FAILED' OR tags.team = 'nlp' OR params.depth = 10": "bce",
    "not status = 'FINISHED'": "bcd", "NOT (status = 'FINISHED' or status = 'FAILED')": "cd",
    "metrics.loss < 0.5 or metrics.acc > 0.8 and status = 'KILLED'": "bce",
    "(metrics.loss < 0.5 or metrics.acc > 0.8) and status = 'KILLED'": "c",
    "not metrics.loss < 0.5": "acd", "not not metrics.loss < 0.5": "be", "not tags.team = 'vision'": "cde",
    "not (tags.team = 'vision')": "cde", "not tags.team != 'vision'": "abe", "((status = 'FAILED'))": "b",
    "not status = 'FINISHED' and not status = 'FAILED'": "cd", "(status = 'FAILED')or(status = 'KILLED')": "bc",
    # between, in, like, null
    "metrics.loss between 0.25 and 0.5": "ab", "metrics.loss not between 0.25 and 0.5": "ce",
    "metrics.loss BETWEEN -2 AND 0 OR metrics.acc = 0.7": "de", "metrics.acc between 0.7 and 0.8 and status = 'FAILED'": "b",
    "params.depth between 3 and 5": "abc", f"start_time between {T} and {T + HOUR}": "ab",
    "params.depth in (3, 10)": "ace", "params.depth in ('3', '10')": "ace", "params.depth in ('3', 10)": "ace",
    "params.depth not in (3, 10)": "b", "params.model in ('cnn', 'CNN')": "ab", "params.model not in ('cnn')": "bcd",
    "status in ('FAILED', 'KILLED')": "bc", "status not in ('FAILED', 'KILLED')": "ade", "metrics.acc in (0.7, 0.8)": "bd",
    "tags.team in ('nlp')": "c", "tags.team not in ('nlp')": "abd", "tags.team not like '%i%'": "cd",
    "params.model not ilike 'cnn'": "cd", "dataset.name not like 'm%'": "a", "metrics.loss is null": "d",
    "metrics.loss is not null": "abce", "end_time is null": "d", "end_time IS NOT NULL": "abce", "note is null": "abcde",
    "dataset.name is null": "cde", "dataset.name is not null": "ab",
    # types
    "params.lr = 0.1": "ac", "params.lr < 0.1": "bd", "params.lr <= 0.01": "bd", "params.lr >= 1e-2": "abc",
    "params.depth = 3": "ac", "params.depth = 3.0": "ac", "params.depth > 3": "be", "params.depth != 3": "be",
    "params.flag = true": "ad", "params.flag = TRUE": "ad", "params.flag = false": "b", "params.flag != true": "b",
    "params.model > 'a'": "acd", "params.model < 'D'": "b", "params.model > 1": "", "params.lr > '0'": "",
    "tags.x.y = 1": "a", "tags.x.y > 0": "a", "tags.team >= 'nlp'": "abc",
    # functions of a metric
    "metrics.loss.min < 0.5": "be", "metrics.loss.min = 0.5": "ac", "metrics.loss.max = 1": "a", "metrics.loss.max < 1": "bce",
    "metrics.loss.count = 3": "a", "metrics.loss.count > 1": "ac", "metrics.loss.last = 0.9": "c", "metrics.loss.last < 1": "abce",
    "metrics.nothing.count = 0": "", "metrics.`loss`.max = 1": "a", 'metrics."a b".min = 1': "c", "metrics.`a b`.count = 1": "c",
    "metrics.val.min = 7": "a", "metrics.val.min = 1": "b", "metrics.val.min > 0": "ab", "metrics.`val`.min > 0": "b",
    "metrics.val.min is null": "cde", "metrics.val.min is not null": "ab", "metrics.val.max = 3": "b",
    "metrics.val.min.max = 7": "a", "metrics.loss.min < 0.5 and metrics.loss.max < 0": "e", "metric.loss.max = 1": "a",
    # at a step
    "metrics.loss[step=0] = 1": "a", "metrics.loss[step=1] > 0.5": "ac", "metrics.loss[step=2] is null": "bcde",
    "metrics.loss[step=0] is not null": "abce", "metrics.`val`[step = 1] = 1": "b", "metrics.loss[step=7] < 9": "",
    "metrics.loss[step=0] between 0.25 and 0.5": "bc", "not metrics.loss[step=0] = 1": "bcde", "metrics.val.min[step=0] = 7": "a",
    "metrics.loss[step=1] in (0.8, 0.7)": "a", "metrics.loss[step=-1] = 0": "",
    # attributes
    "name = 'alpha'": "a", "name ilike 'ALPHA'": "ae", "run.name = 'beta'": "b", "id = '<d>'": "d", "id in ('<a>', '<b>')": "ab",
    "user = 'ann'": "ace", "user in ('bob', 'cid')": "bd", 
    "experiment = 'digits'": "abcde", "experiment != 'digits'": "", "experiment like 'dig%'": "abcde", "experiment = 'x'": "",
    "experiment in ('digits', 'x')": "abcde", "parent_run_id is null": "abcde", "status = 'LOST'": "", "status != 'LOST'": "abcde",
    "experiment_id is not null": "abcde", "artifacts.name is null": "abcde", "artifacts.size > 0": "", "models.flavor = 'x'": "",
    # times
    "duration > 90s": "b", "duration >= 1m": "ab", "duration = 2h": "b", "duration < 1.5m": "ace", "duration = 0": "e",
    "duration <= 10000": "ce", "duration is null": "d", "duration between 5s and 1h": "ac", "duration < 1d": "abce",
    "duration < 1w": "abce", "start_time < now": "abcde", "start_time < now - 2h": "abcde", "start_time > now - 1d": "",
    "start_time > -7d": "", "start_time < - 2h": "abcde", "start_time < now-2h": "abcde", "start_time > now + 1h": "",
    "start_time < NOW": "abcde", "start_time > '2023-11-14T23:00:00Z'": "bcde", "start_time > 2023-11-14T23:00:00Z": "bcde",
    "start_time < '2023-11-15T01:00:00+00:00'": "abc", "start_time < 2023-11-15T02:00:00+01:00": "abc",
    "start_time > '2023-11-13'": "abcde", "start_time > 2023-11-17": "", "end_time < '2023-11-14T22:14:21Z'": "a",
    "start_time between 2023-11-14T23:00:00Z and '2023-11-15T01:00:00Z'": "bc",
    # quoting
    "tags.\"key with 'quote\" = 'q'": "a", "tags.`key with 'quote` is not null": "a", "tags.'key with ''quote' = 'q'": "a",
    "params.model = 'it''s'": "d", "params.`a b` like 'x%'": "a", "metrics.val-loss > 0": "", "metrics.val/loss:0 > 0": "",
    "tags.`a``b` is null": "abcde",
    # parameters
    ("metrics.loss < ?", 0.5): "be", ("params.model = ?", "it's"): "d", ("params.model = ? or params.depth = ?", "cnn", 10): "ae",
    ("params.flag = ?", True): "ad", ("run_id in ?", ("<a>", "<b>")): "ab", ("params.depth in (?, ?)", 3, 5): "abc",
    ("params.depth not in ?", (3, 5)): "e", ("run_id in ?", ()): "", ("tags.team like ?", "%i%"): "ab",
    ("metrics.acc between ? and ?", 0.75, 0.85): "b", ("start_time >= ?", T + HOUR): "bcde", ("metrics.loss > ?", float("-inf")): "abce",
}  # fmt: skip

ORDERS = {
    "metrics.loss": ("ebacd", True), "metrics.loss ASC": ("ebacd", True), "metrics.loss DESC": ("cabed", True),
    "metrics.loss desc": ("cabed", True), "metric.`loss`": ("ebacd", True), "start_time": ("abcde", True),
    "attributes.start_time DESC": ("edcba", True), "created": ("abcde", True), "end_time": ("acbed", True),
    "run_name": ("eabdc", True), "attributes.run_name desc": ("cdbae", True), "tags.team": ("dcbae", True),
    "params.model": ("badce", True), "params.`a b`": ("aedcb", True), "metrics.nothing": ("edcba", True),
    "status": ("beacd", True), "params.lr": ("dbcae", False), "params.depth desc": ("ebcad", False),
    "metrics.acc desc, start_time": ("acbde", False), "params.depth,metrics.loss": ("acbed", False),
    "metrics.loss.min": ("ebcad", False), "metrics.loss.count desc, name": ("acebd", False), "duration": ("ecabd", False),
    "duration desc": ("baced", False), "name, id": ("eabdc", False), "metrics.val.min": ("abedc", False),
}  # fmt: skip
