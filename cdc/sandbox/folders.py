"""Temporary folders that are removed even where their owner was killed: by the next one that makes a folder."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from pathlib import Path
from typing import IO, Any

_PREFIX = "duckling-sandbox-"
_LOCK = "owner.lock"


class PrivateFolder:
    """A folder `path` for one owner, in the system's folder of temporary files; `close` removes it."""

    def __init__(self, kind: str) -> None:
        remove_leftovers()
        made = Path(tempfile.mkdtemp(prefix=f"duckling-new-{kind}-"))
        self._owner = lock(made / _LOCK)
        # It gets the name that remove_leftovers looks for when it is locked, not before.
        self.path = made.rename(made.with_name(made.name.replace("duckling-new-", _PREFIX)))

    def close(self) -> None:
        """Removes the folder with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._owner.close()

    def __enter__(self) -> PrivateFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def lock(path: Path) -> IO[Any]:
    """The file, opened and locked for as long as it is open. Raises BlockingIOError where another has it."""
    file = path.open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise
    return file


def remove_leftovers() -> None:
    """Removes the private folders whose owners are dead."""
    for folder in Path(tempfile.gettempdir()).glob(_PREFIX + "*"):
        try:
            free = lock(folder / _LOCK)
        except OSError:  # in use, another user's, or just removed by another process
            continue
        with free:
            shutil.rmtree(folder, ignore_errors=True)
