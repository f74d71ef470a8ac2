"""Say in plain words what Azure answered, and what to do about it.

See https://learn.microsoft.com/en-us/rest/api/storageservices/blob-service-error-codes
"""

from __future__ import annotations

import errno
from typing import Any

from mlcore.errors import ArtifactError
from mlcore_azure.settings import IDENTITIES, Settings
from mlcore_s3.failures import Answered, Denied, Unreachable, answer_in, is_passing, never_connected, reason_in

__all__ = ["Explaining"]

_BUNDLE = "MLCORE_AZURE_CA_BUNDLE"
_MAY = "the role Storage Blob Data Contributor, or a SAS token with the permissions racwdl"
_UNKNOWN = ("AuthenticationFailed", "InvalidAuthenticationInfo", "NoAuthenticationInformation")
_TOLD = {  # by the code of the answer
    "BlobArchived": "is archived: bring it to another tier first",
    "BlobBeingRehydrated": "is archived, and on its way to another tier: try again later",
    "ConditionNotMet": "was replaced while it was read: open it again",
    "InvalidResourceName": "cannot name an object",
    "InvalidUri": "cannot name an object",
    "LeaseIdMissing": "is leased to somebody, who alone may change it",
}


class Explaining:
    """Make errors of what a container's server answered, or did not; see `mlcore_s3.engine.Bucket`."""

    def __init__(self, container: str, settings: Settings, store: Any) -> None:
        self._container, self._settings, self._store = container, settings, store

    def __call__(self, error: Exception, uri: str) -> Exception:
        """Return what to raise."""
        settings = self._settings
        if settings.how in IDENTITIES and not _of_storage(error):
            return self._without_token(error, uri)
        answer = answer_in(error)
        if answer is None:
            return self._unanswered(error, uri)
        if answer.status in (400, 401, 403, 409) and not answer.code:
            answer = self._in_words(answer)
        return self._answered(answer, uri, error)

    def _in_words(self, answer: Answered) -> Answered:
        """Ask what the server has words for in its answer: to HEAD it has none."""
        import obstore

        try:
            next(iter(obstore.list(self._store, chunk_size=1)), None)
        except Exception as error:  # noqa: BLE001 - it is the same one again, with more to say, or says no more
            told = answer_in(error)
            return told if told is not None and told.code else answer
        return answer

    def _answered(self, answer: Answered, uri: str, error: Exception) -> Exception:
        code, server = answer.code, self._settings.endpoint
        if why := self._denial(answer):
            return Denied(f"{uri}: {why}", 401 if answer.status == 401 or code == "AuthenticationFailed" else 403)
        if code in ("ContainerNotFound", "ContainerBeingDeleted", "ResourceNotFound"):
            there = f"there is no container {self._container!r} at {server}"
            return ArtifactError(f"{uri}: {there}: make it, or correct its name or AZURE_STORAGE_ACCOUNT")
        if code in _TOLD:
            return ArtifactError(f"{uri} {_TOLD[code]}")
        if type(error).__name__ == "AlreadyExistsError":
            return FileExistsError(errno.EEXIST, "there is an object already", uri)
        if answer.status == 404:
            return FileNotFoundError(errno.ENOENT, "there is no object", uri)
        if answer.status == 412:
            return ArtifactError(f"{uri} {_TOLD['ConditionNotMet']}")
        told = f"{answer.status} {code}".strip()
        if is_passing(error):
            waited = f"for {self._settings.patience:g} s"
            return Unreachable(
                f"{uri}: {server} fails with {told} {waited}: try again later, or set MLCORE_AZURE_PATIENCE"
            )
        words = answer.message.partition("RequestId:")[0]
        return ArtifactError(f"{uri}: {server} answered {told}" + (f": {words}" if words else ""))

    def _denial(self, answer: Answered) -> str:
        """Return why the server does not let who asks, and what to do; nothing if that is not it."""
        settings, code = self._settings, answer.code
        if not settings.how and (
            answer.status in (401, 403) or code in ("PublicAccessNotPermitted", "ResourceNotFound")
        ):
            return f"{settings.endpoint} does not show it to anybody: unset MLCORE_AZURE_ANONYMOUS, and say who you are"
        if answer.status not in (401, 403):
            return ""
        if settings.has_ended() or "specified time frame" in answer.message:
            return f"the SAS token has expired ({settings.source}): get a new one"
        if code == "AccountIsDisabled":
            return f"the account {settings.account} is disabled"
        if code in _UNKNOWN or "failed to authenticate" in answer.message:
            if settings.how in IDENTITIES:
                return f"{settings.endpoint} does not take the token of {settings.source}"
            what = "the SAS token" if settings.how == "sas_token" else "the key"
            return f"{what} is not one of the account {settings.account} ({settings.source}): correct it"
        return f"{settings.endpoint} does not allow it to who comes with {settings.source}: ask its owner for {_MAY}"

    def _without_token(self, error: Exception, uri: str) -> Exception:
        answer = answer_in(error)
        why = reason_in(error, _BUNDLE) if answer is None else f"it answered {answer.status} {answer.code}".strip()
        how = "set AZURE_STORAGE_KEY, AZURE_STORAGE_SAS_TOKEN, AZURE_STORAGE_CONNECTION_STRING or AZURE_CLIENT_ID"
        none = "there is nothing that says who you are, and " if self._settings.how == "managed_identity" else ""
        return Denied(f"{uri}: {none}{self._settings.source} gave no token ({why}): {how}", 401)

    def _unanswered(self, error: Exception, uri: str) -> Exception:
        server = self._settings.endpoint
        if isinstance(error, FileNotFoundError):
            return FileNotFoundError(errno.ENOENT, "there is no object", uri)
        if type(error).__name__ in ("AlreadyExistsError", "FileExistsError"):
            return FileExistsError(errno.EEXIST, "there is an object already", uri)
        if isinstance(error, ValueError) and not isinstance(error, OSError):  # which a bad certificate is, too
            return ArtifactError(f"{uri} cannot name an object")
        reason = reason_in(error, _BUNDLE)
        if never_connected(error):
            what = "check the network, and AZURE_STORAGE_ACCOUNT or AZURE_STORAGE_ENDPOINT"
            return Unreachable(f"{uri}: {server} cannot be reached ({reason}): {what}")
        return Unreachable(f"{uri}: {server} broke off ({reason}): try again later, or set MLCORE_AZURE_PATIENCE")


def _of_storage(error: Exception) -> bool:
    """Tell whether what failed is a question for files, not for a token."""
    text = str(error).partition("\nDebug source:")[0]
    return not any(
        words in text for words in ("token request", "azure cli", "Azure CLI", "az account", "federated token")
    )
