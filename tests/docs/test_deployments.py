"""Keep the files for Compose and Kubernetes true, without either: names fit together, and nothing runs as root."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import yaml

from house.tree import PLUGINS, ROOT
from mlcore_server.settings import PORT, Settings

EXAMPLES = ROOT / "docs" / "examples"
COMPOSE = yaml.safe_load((EXAMPLES / "compose" / "compose.yaml").read_text())
OBJECTS = [
    each for path in sorted((EXAMPLES / "kubernetes").glob("*.yaml")) for each in yaml.safe_load_all(path.read_text())
]
KINDS = {each["kind"]: each for each in OBJECTS}
VARIABLES = {f"MLCORE_SERVER_{field.name.upper()}" for field in attrs.fields(Settings)}


def known(variable: str) -> bool:
    """Tell whether the server reads a variable."""
    return variable in VARIABLES or variable.removesuffix("_FILE") in VARIABLES


def pods() -> Iterator[dict[str, Any]]:
    """Yield what every pod is made of."""
    for each in OBJECTS:
        if "template" in each["spec"]:
            yield each["spec"]["template"]["spec"]


def test_the_image_holds_the_packages_that_a_server_needs_and_is_not_root() -> None:
    """Guards the image that both examples run."""
    lines = (EXAMPLES / "compose" / "Dockerfile").read_text()
    assert set(re.findall(r"plugins/(mlcore-\w+)", lines)) <= {path.name for path in PLUGINS}
    assert {"./core", "./plugins/mlcore-server", "./plugins/mlcore-remote", "./plugins/mlcore-local"} <= set(
        lines.split()
    )
    assert "\nUSER 10001:10001\n" in lines
    assert f"\nEXPOSE {PORT}\n" in lines
    assert '\nENTRYPOINT ["mlcore"]\n' in lines  # as a list: a shell would keep SIGTERM to itself
    assert all(known(each) for each in re.findall(r"MLCORE_SERVER_\w+", lines))


def test_compose_names_what_there_is() -> None:
    """Guards against variables, secrets, volumes and files that nobody knows."""
    services = COMPOSE["services"]
    for name, service in services.items():
        assert all(known(each) for each in service.get("environment", {}) if each.startswith("MLCORE_")), name
        assert set(service.get("secrets", ())) <= set(COMPOSE["secrets"]), name
        assert set(service.get("depends_on", ())) <= set(services), name
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert source in COMPOSE["volumes"] or (EXAMPLES / "compose" / source).exists(), name
    for name in ("pgbouncer", "migrate", "server"):
        assert services[name]["read_only"] is True
        assert services[name]["cap_drop"] == ["ALL"]
    drain = attrs.fields_dict(Settings)["drain"].default
    assert int(services["server"]["stop_grace_period"].rstrip("s")) > drain
    assert f"server:{PORT}" in (EXAMPLES / "compose" / "nginx.conf").read_text()
    assert all(address.startswith("127.0.0.1:") for address in services["proxy"]["ports"])  # it has no TLS


def test_the_secrets_are_made_by_nobody_else_readable_and_by_the_names_that_compose_has(tmp_path: Path) -> None:
    """Guards the script: what it makes fits the settings, and is not in the repository."""
    script = tmp_path / "make-secrets.sh"
    script.write_text((EXAMPLES / "compose" / "make-secrets.sh").read_text())
    subprocess.run(["sh", script], check=True, capture_output=True)
    made = tmp_path / "secrets"
    assert {f"secrets/{path.name}" for path in made.iterdir()} == {each["file"] for each in COMPOSE["secrets"].values()}
    assert stat.S_IMODE(os.stat(made).st_mode) == 0o700
    password = (made / "db_password").read_text()
    assert re.fullmatch("[0-9a-f]{64}", password)
    assert (made / "store").read_text() == f"postgresql://mlcore:{password}@pgbouncer:6432/mlcore"
    assert re.fullmatch(r"team=mlc_[0-9a-f]{64}\n", (made / "tokens").read_text())
    assert "secrets/" in (EXAMPLES / "compose" / ".gitignore").read_text().split()
    assert subprocess.run(["sh", script], check=False, capture_output=True).returncode != 0  # never over old ones


def test_pods_run_without_rights() -> None:
    """Guards clusters that enforce the restricted standard for pods."""
    assert len(list(pods())) == 2
    for pod in pods():
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 10001
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {each["name"] for each in container["volumeMounts"]} == {each["name"] for each in pod["volumes"]}
        (secret,) = (each["secret"] for each in pod["volumes"] if "secret" in each)
        assert secret == {"secretName": "mlcore", "defaultMode": 0o440}


def test_the_manifests_fit_together_and_the_server() -> None:
    """Guards names, ports, probes and the time that an end takes."""
    deployment, service, ingress = (KINDS[kind] for kind in ("Deployment", "Service", "Ingress"))
    pod = deployment["spec"]["template"]["spec"]
    (server,) = pod["containers"]
    assert deployment["spec"]["selector"]["matchLabels"] == deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"]
    assert server["ports"] == [{"name": "http", "containerPort": PORT}]
    assert server["livenessProbe"]["httpGet"] == {"path": "/livez", "port": "http"}
    assert server["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    variables = {each["name"]: each["value"] for each in server["env"]}
    assert all(map(known, variables))
    assert {Path(variables[name]).parent for name in variables if name.endswith("_FILE")} == {Path("/etc/mlcore")}
    assert ingress["spec"]["rules"][0]["host"] in variables["MLCORE_SERVER_ALLOWED_HOSTS"].split(",")
    assert service["metadata"]["name"] in variables["MLCORE_SERVER_ALLOWED_HOSTS"].split(",")
    (claim,) = (
        each["persistentVolumeClaim"]["claimName"] for each in pod["volumes"] if "persistentVolumeClaim" in each
    )
    assert claim == KINDS["PersistentVolumeClaim"]["metadata"]["name"]
    (path,) = ingress["spec"]["rules"][0]["http"]["paths"]
    assert path["backend"] == {"service": {"name": service["metadata"]["name"], "port": {"name": "http"}}}
    waited = int(server["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > waited + attrs.fields_dict(Settings)["drain"].default


def test_the_page_on_proxies_shows_the_configuration_that_is_tried() -> None:
    """Guards what a reader copies: tests/plugins/server/test_proxy.py runs the file."""
    page = (ROOT / "docs" / "how-to" / "behind-a-proxy-and-in-jupyter.md").read_text()
    whole = (EXAMPLES / "proxy" / "nginx.conf").read_text()
    location = whole[whole.index("        location") : whole.index("        }\n") + 9]
    assert re.sub("^ {8}", "", location, flags=re.MULTILINE).strip() in page
