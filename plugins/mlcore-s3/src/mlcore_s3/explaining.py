"""Say in plain words what S3 answered, and what to do about it."""

from __future__ import annotations

import errno
from contextlib import suppress

from mlcore.errors import ArtifactError, MlcoreError
from mlcore_s3.credentials import Chain
from mlcore_s3.failures import Answered, Denied, Unreachable, answer_in, is_passing, never_connected, reason_in
from mlcore_s3.settings import Settings
from mlcore_s3.speaking import Speaker

__all__ = ["Explaining"]

_DENIALS = {
    ("InvalidAccessKeyId", "InvalidClientTokenId"): "{server} does not know the access key ({keys}): correct it",
    (
        "SignatureDoesNotMatch",
    ): "the secret key is not that of the access key ({keys}): correct AWS_SECRET_ACCESS_KEY or the profile",
    (
        "ExpiredToken",
        "ExpiredTokenException",
        "TokenRefreshRequired",
    ): "the keys have expired ({keys}): get new ones where you got these, as with `aws sso login`",
    ("InvalidToken",): "the session token does not go with the keys ({keys}): correct AWS_SESSION_TOKEN or the profile",
    ("RequestTimeTooSkewed",): "the clocks of this machine and of {server} differ: set this machine's clock",
}
_ELSEWHERE = ("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "Redirect")


class Explaining:
    """Make errors of what a bucket's server answered, or did not; see `mlcore_s3.engine.Bucket`."""

    def __init__(self, bucket: str, server: str, settings: Settings, chain: Chain | None, speaker: Speaker) -> None:
        self._bucket, self._server, self._settings = bucket, server, settings
        self._chain, self._speaker = chain, speaker

    def __call__(self, error: Exception, uri: str) -> Exception:
        """Return what to raise."""
        answer = answer_in(error)
        if answer is None:
            return self._unanswered(error, uri)
        if answer.status in (301, 307, 400, 401, 403) and not answer.code:
            answer = self._in_words(answer)
        return self._answered(answer, uri, error)

    def _in_words(self, answer: Answered) -> Answered:
        """Ask what the server has words for in its answer: to HEAD it has none."""
        try:
            self._speaker.ask("GET", "", {"list-type": "2", "max-keys": "0"})
        except Answered as told:
            return told if told.code else answer
        except Exception:  # noqa: BLE001 - it only says less
            return answer
        return answer

    def _answered(self, answer: Answered, uri: str, error: Exception) -> Exception:
        code, region = answer.code, answer.region
        if why := self._denial(answer):
            return Denied(f"{uri}: {why}", 403 if code == "AccessDenied" else 401)
        if code == "NoSuchBucket":
            there = f"there is no bucket {self._bucket!r} at {self._server}"
            return ArtifactError(f"{uri}: {there}: make it, or correct its name, AWS_ENDPOINT_URL or the profile")
        if code in _ELSEWHERE or answer.status in (301, 307):
            there = f"is in {region or 'another region'}, not in {self._settings.region}"
            return ArtifactError(f"{uri}: the bucket {there}: set AWS_REGION={region or '(its region)'}")
        if code == "NoSuchUpload":
            return ArtifactError(
                f"{uri}: the server gave up the upload, as a rule of the bucket may say: store it again"
            )
        if type(error).__name__ == "AlreadyExistsError":
            return FileExistsError(errno.EEXIST, "there is an object already", uri)
        if answer.status == 404:
            return FileNotFoundError(errno.ENOENT, "there is no object", uri)
        if answer.status == 412:
            return ArtifactError(f"{uri} was replaced while it was read: open it again")
        told = f"{answer.status} {code}".strip()
        if is_passing(error):
            waited = f"for {self._settings.patience:g} s"
            return Unreachable(
                f"{uri}: {self._server} fails with {told} {waited}: try again later, or set MLCORE_S3_PATIENCE"
            )
        words = f": {answer.message}" if answer.message else ""
        return ArtifactError(f"{uri}: {self._server} answered {told}{words}")

    def _denial(self, answer: Answered) -> str:
        """Return why the server does not let who asks, and what to do; nothing if that is not it."""
        keys = "no keys" if self._chain is None else self._chain.source
        for codes, words in _DENIALS.items():
            if answer.code in codes:
                return words.format(server=self._server, keys=keys)
        if answer.status not in (401, 403):
            return ""
        who = "anybody: unset MLCORE_S3_ANONYMOUS, or" if self._chain is None else f"who has these keys ({keys}):"
        may = "s3:GetObject, s3:PutObject, s3:DeleteObject and s3:ListBucket"
        return f"{self._server} does not allow it to {who} ask the bucket's owner for {may}"

    def _unanswered(self, error: Exception, uri: str) -> Exception:
        if isinstance(error, FileNotFoundError):
            return FileNotFoundError(errno.ENOENT, "there is no object", uri)
        if type(error).__name__ in ("AlreadyExistsError", "FileExistsError"):
            return FileExistsError(errno.EEXIST, "there is an object already", uri)
        if isinstance(error, ValueError) and not isinstance(error, OSError):  # which a bad certificate is, too
            return ArtifactError(f"{uri} cannot name an object")
        if self._chain is not None:
            with suppress(OSError):
                try:
                    self._chain()  # obstore does not hand on what it was told
                except Denied as told:
                    return Denied(f"{uri}: {told}", told.status)
                except MlcoreError as told:
                    return told
        reason = reason_in(error)
        if never_connected(error):
            return Unreachable(
                f"{uri}: {self._server} cannot be reached ({reason}): check the network, its name and AWS_ENDPOINT_URL"
            )
        return Unreachable(f"{uri}: {self._server} broke off ({reason}): try again later, or set MLCORE_S3_PATIENCE")
