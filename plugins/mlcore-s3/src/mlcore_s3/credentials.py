"""Find the keys for S3 where AWS's own programs find them, and renew those that expire.

In this order: the environment, a web identity (a token file and a role), the profile of ``~/.aws``, a container's
service, the instance's service. A profile that is named in a URI comes before the environment. What needs AWS's own
library, single sign-on and roles taken by way of another profile, is not done here; the error says how to have it.
"""

from __future__ import annotations

import datetime
import json
import os
import shlex
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

import attrs

from mlcore_s3.failures import Denied
from mlcore_s3.profiles import Profile

__all__ = ["Chain", "Credentials"]

_EARLY = 300.0  # seconds before their end that keys are renewed
_WAIT = 2.0
_INSTANCE = "http://169.254.169.254"
_CONTAINER = "http://169.254.170.2"
_NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@attrs.frozen
class Credentials:
    """Hold keys, when they end in seconds since 1970 if they do, and in words where they are from."""

    access_key: str
    secret_key: str = attrs.field(repr=False)
    token: str | None = attrs.field(default=None, repr=False)
    expires: float | None = None
    source: str = ""


class Chain:
    """Find keys when they are first needed, and again before they end; for all threads of a process."""

    def __init__(self, profile: Profile) -> None:
        self._profile, self._lock = profile, threading.Lock()
        self._found: Credentials | None = None

    @property
    def source(self) -> str:
        """Where the keys in use are from, in words."""
        return "none yet" if self._found is None else self._found.source

    def __call__(self) -> Credentials:
        """Return keys that are good for now. Raises `Denied` if there are none."""
        with self._lock:
            if self._found is None or (self._found.expires and self._found.expires - _EARLY < time.time()):
                self._found = _find(self._profile)
            return self._found


def _find(profile: Profile) -> Credentials:
    places = [_environment, _web_identity, _in_profile, _container, _instance]
    if profile.named:
        places = [_in_profile]
    for place in places:
        if found := place(profile):
            return found
    looked = f"the profile {profile.name!r} of {profile.where}"
    if not profile.named:
        looked = f"AWS_ACCESS_KEY_ID, {looked}, and what a container or an instance offers"
    raise Denied(
        f"there are no keys for S3 (looked at {looked}): set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or"
        " AWS_PROFILE; MLCORE_S3_ANONYMOUS=1 is for buckets that anybody may read"
    )


def _environment(_: Profile) -> Credentials | None:
    key, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
    if not key or not secret:
        return None
    token = os.environ.get("AWS_SESSION_TOKEN") or os.environ.get("AWS_SECURITY_TOKEN")
    return Credentials(key, secret, token or None, source="AWS_ACCESS_KEY_ID of the environment")


def _web_identity(_: Profile) -> Credentials | None:
    file, role = os.environ.get("AWS_WEB_IDENTITY_TOKEN_FILE"), os.environ.get("AWS_ROLE_ARN")
    return _assumed(file, role, os.environ.get("AWS_ROLE_SESSION_NAME")) if file and role else None


def _assumed(file: str, role: str, session: str | None) -> Credentials:
    """Ask for the keys of a role with the token in a file, as Kubernetes and others give to what they run."""
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    server = f"https://sts.{region}.amazonaws.com" if region else "https://sts.amazonaws.com"
    server = os.environ.get("AWS_ENDPOINT_URL_STS") or server
    with _telling(f"the role {role}"):
        query = {
            "Action": "AssumeRoleWithWebIdentity",
            "Version": "2011-06-15",
            "RoleArn": role,
            "RoleSessionName": session or f"mlcore-{os.getpid()}",
            "WebIdentityToken": Path(file).read_text(encoding="utf-8").strip(),
        }
        with urllib.request.urlopen(server, urllib.parse.urlencode(query).encode(), timeout=8) as answer:  # noqa: S310
            found = ElementTree.fromstring(answer.read(1 << 20))  # noqa: S314 - of AWS
        names = ("AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration")
        told = {name: found.findtext(f".//{{*}}{name}", "") for name in names}
        return _from_json(told, f"the web identity of {role}")


def _in_profile(profile: Profile) -> Credentials | None:
    named = f"the profile {profile.name!r} of {profile.where}"
    if key := profile.get("aws_access_key_id"):
        secret = profile.get("aws_secret_access_key")
        if not secret:
            raise Denied(f"{named} has an aws_access_key_id and no aws_secret_access_key")
        return Credentials(key, secret, profile.get("aws_session_token"), source=named)
    role = profile.get("role_arn")
    if role and (file := profile.get("web_identity_token_file")):
        return _assumed(os.path.expanduser(file), role, profile.get("role_session_name"))
    if command := profile.get("credential_process"):
        return _told(command, named)
    if role or any(name.startswith("sso_") for name in profile.values):
        how = f"credential_process = aws configure export-credentials --profile {profile.name}"
        raise Denied(
            f"{named} takes its keys from single sign-on or another profile, which mlcore leaves to AWS's own"
            f" program: use a profile that has the line `{how}`, or export its keys to the environment"
        )
    return None


def _told(command: str, named: str) -> Credentials:
    try:
        run = subprocess.run(shlex.split(command), capture_output=True, timeout=60, check=True)
        return _from_json(json.loads(run.stdout), f"the credential_process of {named}")
    except (OSError, subprocess.SubprocessError, ValueError, KeyError) as error:
        status = getattr(error, "returncode", None)
        what = type(error).__name__ if status is None else f"status {status}"
        raise Denied(f"the credential_process of {named} gave no keys: {what}") from None  # its output may hold some


def _container(_: Profile) -> Credentials | None:
    relative, full = (os.environ.get(f"AWS_CONTAINER_CREDENTIALS_{name}_URI") for name in ("RELATIVE", "FULL"))
    if not relative and not full:
        return None
    headers, file = {}, os.environ.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")
    with _telling("the container's service"):
        if token := Path(file).read_text().strip() if file else os.environ.get("AWS_CONTAINER_AUTHORIZATION_TOKEN"):
            headers["Authorization"] = token
        url = f"{_CONTAINER}{relative}" if relative else str(full)
        return _from_json(json.loads(_ask(url, headers)), "the container's service")


def _instance(_: Profile) -> Credentials | None:
    if os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        return None
    server = (os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or _INSTANCE).rstrip("/")
    try:
        seconds = {"X-aws-ec2-metadata-token-ttl-seconds": "21600"}
        headers = {"X-aws-ec2-metadata-token": _ask(f"{server}/latest/api/token", seconds, "PUT").decode()}
        roles = f"{server}/latest/meta-data/iam/security-credentials/"
        role = _ask(roles, headers).decode().split("\n")[0].strip()
        return _from_json(json.loads(_ask(roles + role, headers)), f"the instance's role {role}")
    except (OSError, ValueError, KeyError) as error:  # no instance of AWS, or one without a role
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        return None


def _ask(url: str, headers: Mapping[str, str], method: str = "GET") -> bytes:
    request = urllib.request.Request(url, headers=dict(headers), method=method)  # noqa: S310
    with _NO_PROXY.open(request, timeout=_WAIT) as answer:
        return bytes(answer.read(1 << 20))


def _from_json(found: Mapping[str, str], source: str) -> Credentials:
    token = found.get("Token") or found.get("SessionToken")  # of a service, and of a command
    return Credentials(found["AccessKeyId"], found["SecretAccessKey"], token, _time(found.get("Expiration")), source)


def _time(text: str | None) -> float | None:
    return datetime.datetime.fromisoformat(text).timestamp() if text else None


@contextmanager
def _telling(whose: str) -> Iterator[None]:
    """Say whose service gave no keys, and nothing of what it answered."""
    try:
        yield
    except (OSError, ValueError, KeyError, ElementTree.ParseError) as error:
        why = type(error).__name__
        if isinstance(error, urllib.error.HTTPError):
            why = f"status {error.code}"
            error.close()
        raise Denied(f"{whose} gave no keys for S3: {why}") from None
