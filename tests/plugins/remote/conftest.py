"""Give tests real databases, and keep the proxies, certificates and tokens of whoever runs them out."""

from __future__ import annotations

import pytest

from servers import postgresql, postgresql_server

__all__ = ["postgresql", "postgresql_server"]

_OUTSIDE = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "MLCORE_CA", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_OUTSIDE += ("SSL_CERT_FILE", "MLCORE_TOKEN", "MLCORE_TOKEN_FILE", "MLCORE_STORE")


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Leave nothing set that would change how a server is reached; keep tokens in a folder of the test."""
    for name in _OUTSIDE:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
