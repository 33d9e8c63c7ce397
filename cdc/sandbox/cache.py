"""The user's cache folder: what is made once and kept, safe for any number of processes at a time."""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cdc.errors import ConfigError


def say(text: str) -> None:
    """One line for the person who waits, on stderr."""
    print(f"duckling: {text}", file=sys.stderr, flush=True)


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/duckling`, or `~/.cache/duckling`; made where it does not exist.

    Raises ConfigError where it can't be made.
    """
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(base) / "duckling"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"the cache folder {folder} can't be made: {error.strerror}",
            hint="set XDG_CACHE_HOME to a folder that can be written",
        ) from error
    return folder


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds an exclusive lock on the file `path`, waiting for it; the kernel frees it if we die."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def made_once(target: Path, make: Callable[[Path], None]) -> Path:
    """`target`, made by `make(folder)` in a folder beside it and renamed when it is complete.

    Of several processes one makes it and the others wait; what a killed process left is removed.
    """
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with locked(target.with_name(target.name + ".lock")):
        if target.is_dir():
            return target
        for leftover in target.parent.glob(target.name + ".new-*"):
            shutil.rmtree(leftover)
        folder = Path(tempfile.mkdtemp(prefix=target.name + ".new-", dir=target.parent))
        try:
            make(folder)
            folder.rename(target)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    return target
