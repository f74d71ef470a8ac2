"""Schemathesis reads the OpenAPI document and asks whatever it allows, and what it does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from serving import serving

# Left out: a string that the schema calls a position or an id need not be one that exists (a schema cannot say so), and
# a batch that is refused is told in an answer with status 200, since others of the same request were stored.
_CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,missing_required_header,unsupported_method,allow_header_conformance,use_after_free,"
    "ensure_resource_availability,ignored_auth"
)


def test_no_request_makes_the_server_fail_or_answer_what_it_did_not_declare(tmp_path: Path) -> None:
    """H1, I1: a thousand requests, the same at every run; no 5xx, no undeclared status, body or method."""
    (tmp_path / "work").mkdir()
    with serving(tmp_path / "store", login_window="0", rate_limit="0", log_level="error") as server:
        command = [
            sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json", "--checks", _CHECKS,
            "--header", f"Authorization: Bearer {server.token}", "--exclude-path", "/api/v1/events/live",  # has no end
            "--phases", "coverage,fuzzing", "--generation-deterministic", "--max-examples", "8", "--warnings", "off",
            "--continue-on-failure", "--no-color",
        ]  # fmt: skip
        ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=tmp_path / "work")
        assert ended.returncode == 0, ended.stdout[-6_000:] + ended.stderr[-2_000:]
        assert "Selected: 2" in ended.stdout.replace("\x1b", "") and server.get("/readyz").status == 200
        assert "Traceback" not in server.errors.read_text()
