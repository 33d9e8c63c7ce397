"""A replica in a process of its own that counts its steps through a change, and dies of SIGKILL at one of them.

Nothing in the product knows of it: the child's threads are traced (`threading.settrace`) while the function
that carries changes out is on the stack of one of them, or the one that swaps a copied table in.
"""

from __future__ import annotations

import linecache
import multiprocessing
import os
import signal
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from tests.replica import Replica

_WATCHED = ("cdc.schema_changes", "cdc.replica")
_ENTRANCES = {("cdc.schema_changes", "__call__"), ("cdc.replica.tables", "swap")}
"""Where a change begins, by module (and those below it) and function."""

_children = multiprocessing.get_context("forkserver")
_children.set_forkserver_preload(["cdc.pipeline", __name__])


@dataclass
class _Steps:
    """Counts lines that are about to run: all watched ones, or those that speak to DuckDB and what follows a
    COMMIT."""

    kill_at: int | None
    every_line: bool
    names: list[str] = field(default_factory=list)
    depth: int = 0
    calls: dict[tuple[int, int], int] = field(default_factory=dict)
    committed: bool = False

    def trace(self, frame: FrameType, event: str, arg: Any) -> Any:  # noqa: ARG002 - as sys.settrace calls it
        module = frame.f_globals.get("__name__", "")
        if not module.startswith(_WATCHED):
            return None
        if any(module.startswith(entrance) and frame.f_code.co_name == name for entrance, name in _ENTRANCES):
            self.depth += 1
            return self._entered
        return self._within if self.depth else None

    def _entered(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "return":
            self.depth -= 1
            return None
        self._within(frame, event, arg)
        return self._entered

    def _within(self, frame: FrameType, event: str, arg: Any) -> Any:  # noqa: ARG002 - as sys.settrace calls it
        if event == "line" and self.depth:
            text = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
            speaks = "execute(" in text and not self._comes_back(frame)
            if self.every_line or speaks or self.committed:
                self.committed = "COMMIT" in text
                if len(self.names) == self.kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                self.names.append(f"{frame.f_globals['__name__']}:{frame.f_lineno}: {text}")
        return self._within

    def _comes_back(self, frame: FrameType) -> bool:
        """Whether a call over several lines comes back to its first one; a loop does so from its beginning."""
        call = (id(frame), frame.f_lineno)
        before = self.calls.get(call)
        self.calls[call] = frame.f_lasti
        return before is not None and frame.f_lasti > before


def _replicate(url: str, path: Path, steps: _Steps, report: Any) -> None:
    threading.settrace(steps.trace)
    replica = Replica(url, path).start(live=False)
    replica.settle()
    replica.stop()
    report.send(steps.names)


def steps_to_the_end(url: str, path: Path, *, every_line: bool) -> list[str]:
    """Lets the file come to the source's end, and names the steps through the changes on the way."""
    receiver, sender = _children.Pipe(duplex=False)
    child = _children.Process(target=_replicate, args=(url, path, _Steps(None, every_line), sender))
    child.start()
    sender.close()
    names: list[str] = receiver.recv()
    child.join()
    assert child.exitcode == 0
    return names


def kill_at(url: str, path: Path, step: int, *, every_line: bool) -> bool:
    """The same, but SIGKILL comes before the step of that number is taken; False where there were fewer."""
    receiver, sender = _children.Pipe(duplex=False)
    child = _children.Process(target=_replicate, args=(url, path, _Steps(step, every_line), sender))
    child.start()
    sender.close()
    child.join()
    receiver.close()
    assert child.exitcode in (0, -signal.SIGKILL)
    return child.exitcode != 0
