"""What can be wrong with a project, and with what is asked of it.

::

    ProjectError (a MlcoreError)   stands above all of them: a project cannot be read, fetched or run
    ├── SourceError                a project cannot be fetched: no such folder, repository, revision, network or git
    ├── ParameterError             a parameter is unknown, missing or of another type (an InvalidValue as well)
    └── NeedsTrust                 a command needs a shell, and nobody said that the project is trusted
"""

from mlcore.errors import InvalidValue, MlcoreError

__all__ = ["NeedsTrust", "ParameterError", "ProjectError", "SourceError"]


class ProjectError(MlcoreError):
    """Say which project cannot be read, fetched or run, why, and what may stand there instead."""


class SourceError(ProjectError):
    """Say what of a source is not there or cannot be reached."""


class ParameterError(ProjectError, InvalidValue):
    """Say which parameters are unknown, missing or of another type."""


class NeedsTrust(ProjectError):
    """Say what of a command only a shell can do, and how to trust the project."""
