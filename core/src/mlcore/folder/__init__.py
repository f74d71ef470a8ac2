"""The folder store's writing side: where things lie, and how to make and open them.

::

    .mlcore/
    ├── store.json                        format and id
    ├── .gitignore                        *
    ├── runs/<last two>/<run id>/         *.journal, later sealed
    ├── store/*.journal                   what belongs to no run
    ├── claims/<first two>/*.journal      one batch each, linked when whole
    └── changes/<month>-<host>            the ids of runs that were opened, a line each
"""

from mlcore.folder._folder import FORMAT, STORE_HOME, Folder, publish

__all__ = ["FORMAT", "STORE_HOME", "Folder", "publish"]
