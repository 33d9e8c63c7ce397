"""Child processes that die with this one, however it ends: none is left over.

A few lines of Python between fork and exec ask the kernel for SIGKILL at the parent's death (prctl(2),
PR_SET_PDEATHSIG, kept over execve(2)). They run in the child's own interpreter, because running Python in a
forked copy of a process with threads is unsafe.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any

_BEFORE_EXEC = """
import ctypes, os, signal, sys
parent, *command = sys.argv[1:]
if ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL, 0, 0, 0) != 0:
    sys.exit("prctl: " + os.strerror(ctypes.get_errno()))
if os.getppid() != int(parent):
    sys.exit("the parent is gone")
os.execv(command[0], command)
"""


@dataclass(slots=True)
class _Request:
    command: Sequence[str]
    env: Mapping[str, str] | None
    cwd: Path | None
    output: IO[Any] | int
    started: Future[subprocess.Popen[bytes]] = field(default_factory=Future)


class _Launcher:
    """A thread that lives as long as the process, and starts every child.

    PR_SET_PDEATHSIG means the death of the parent's THREAD (prctl(2)): a child started by the thread of one
    test would die with that thread.
    """

    def __init__(self) -> None:
        self.requests: SimpleQueue[_Request] = SimpleQueue()
        self.pid = os.getpid()
        threading.Thread(target=self._run, name="duckling-launcher", daemon=True).start()

    def _run(self) -> None:
        while True:
            request = self.requests.get()
            try:
                process = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-c", _BEFORE_EXEC, str(os.getpid()), *request.command],
                    stdin=subprocess.DEVNULL,
                    stdout=request.output,
                    stderr=subprocess.STDOUT,
                    env=request.env,
                    cwd=request.cwd,
                    # Ctrl-C in the terminal is for us alone: we stop our children in our order.
                    start_new_session=True,
                )
            except Exception as error:  # noqa: BLE001 - handed to the caller's thread
                request.started.set_exception(error)
            else:
                request.started.set_result(process)


_launcher: _Launcher | None = None
_launcher_lock = threading.Lock()


def launch(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    output: IO[Any] | int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Starts `command` (its first word a full path) with both outputs to `output`, and its own session.

    Raises OSError where no process can be made.
    """
    global _launcher
    with _launcher_lock:
        if _launcher is None or _launcher.pid != os.getpid():  # the thread does not survive a fork
            _launcher = _Launcher()
        launcher = _launcher
    request = _Request(command, env, cwd, output)
    launcher.requests.put(request)
    return request.started.result()
