"""Where row images begin: the one thing about rows that must be found out one row after another.

An image does not say how long it is. Which values it has is told by its bitmap of NULLs, so code is generated for
each bitmap that is met: a few additions and one look at each value's length, with nothing to decide. Bitmaps
beyond the first `_MOST_BITMAPS` of a layout share code that asks for each column.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

from cdc.errors import BinlogError
from cdc.source.row_layout import Cells, RowLayout, Run

_MOST_BITMAPS = 32

Step = Callable[[bytes, int], int]
Walk = Callable[[bytes, Iterable[tuple[int, int]], Callable[[int], None]], None]


class RowWalk:
    """Walks over the images of one layout. Raises BinlogError, or IndexError at the buffer's end, where an image lacks
    bytes."""

    def __init__(self, layout: RowLayout) -> None:
        self._layout = layout
        self._width = layout.null_bytes
        self._any: Step | None = None
        self._codes: dict[bytes, tuple[Step, Walk, Walk]] = {}
        self._steps = _Steps(self._step)

    def step(self, buffer: bytes, pos: int) -> int:
        """Where the image that begins at `pos` ends."""
        return self._steps[buffer[pos : pos + self._width]](buffer, pos)

    def images(
        self, buffer: bytes, spans: Iterable[tuple[int, int]], first: int, add: Callable[[int], None]
    ) -> None:
        """Calls `add` with the place of each image in `spans`, the first of which begins at `first`.

        Raises BinlogError where the images of a span don't end with it.
        """
        self._code(buffer[first : first + self._width])[1](buffer, spans, add)

    def pairs(
        self, buffer: bytes, spans: Iterable[tuple[int, int]], first: int, add: Callable[[int], None]
    ) -> None:
        """As `images`, where a row has two: the one before a change, and the one after it."""
        self._code(buffer[first : first + self._width])[2](buffer, spans, add)

    def _step(self, bitmap: bytes) -> Step:
        if len(self._codes) < _MOST_BITMAPS:
            return self._code(bitmap)[0]
        if self._any is None:
            self._any = self._compiled(_SourceOfAny(self._layout))[0]
        return self._any

    def _code(self, bitmap: bytes) -> tuple[Step, Walk, Walk]:
        """The code for images with this bitmap first, and any others behind."""
        found = self._codes.get(bitmap)
        if found is None:
            if len(bitmap) < self._width:
                raise _misfit()
            if len(self._codes) >= _MOST_BITMAPS:
                return self._codes[next(iter(self._codes))]
            found = self._codes[bitmap] = self._compiled(_Source(self._layout, bitmap))
        return found

    def _compiled(self, source: _Source) -> tuple[Step, Walk, Walk]:
        namespace: dict[str, Any] = {"steps": self._steps, "misfit": _misfit}
        exec(compile(source.text(), "<row walk>", "exec"), namespace)
        return namespace["step"], namespace["images"], namespace["pairs"]


class _Steps(dict[bytes, Step]):
    """The step over an image by its bitmap."""

    def __init__(self, make: Callable[[bytes], Step]) -> None:
        self._make = make

    def __missing__(self, bitmap: bytes) -> Step:
        made = self._make(bitmap)
        if len(self) < _MOST_BITMAPS:
            self[bitmap] = made
        return made


class _Source:
    """The source of the functions for images of one bitmap."""

    def __init__(self, layout: RowLayout, bitmap: bytes = b"") -> None:
        self._layout = layout
        self._bitmap = bitmap

    def text(self) -> str:
        """`step(buf, pos)`, and the loops `images` and `pairs`, each `(buf, spans, add)`."""
        step = self._step()
        lines = ["def step(buf, pos):", *_indent(step, 1), "    return pos"]
        image = ["add(pos)", f"if {self._matches()}:", *_indent(step, 1), *self._otherwise()]
        for name, body in (("images", image), ("pairs", image * 2)):
            lines += [
                f"def {name}(buf, spans, add):",
                "    for pos, end in spans:",
                "        while pos < end:",
                *_indent(body, 3),
                "        if pos != end:",
                "            raise misfit()",
            ]
        return "\n".join(lines)

    def _matches(self) -> str:
        """An expression for: the image at `pos` has this bitmap."""
        if len(self._bitmap) <= 2:
            return " and ".join(f"buf[pos + {i}] == {byte}" for i, byte in enumerate(self._bitmap)) or "True"
        return f"buf[pos:pos + {len(self._bitmap)}] == {self._bitmap!r}"

    def _otherwise(self) -> list[str]:
        width = self._layout.null_bytes
        return ["else:", f"    pos = steps[buf[pos:pos + {width}]](buf, pos)"]

    def _step(self) -> list[str]:
        """Lines that move `pos` over one image with this bitmap."""
        nulls = int.from_bytes(self._bitmap, "little")
        lines: list[str] = []
        passed = self._layout.null_bytes
        for part in self._layout.parts:
            if isinstance(part, Run):
                pairs = zip(part.columns, part.widths, strict=True)
                passed += sum(width for i, width in pairs if not nulls >> i & 1)
            elif not nulls >> part.column & 1:
                lines.append(f"pos += {_length(part, passed)} + {passed + part.prefix}")
                passed = 0
        return [*lines, f"pos += {passed}"]


class _SourceOfAny(_Source):
    """The source of a step that goes by each image's own bitmap."""

    def _step(self) -> list[str]:
        width = self._layout.null_bytes
        lines = [f"nulls = int.from_bytes(buf[pos:pos + {width}], 'little')", f"pos += {width}"]
        for part in self._layout.parts:
            if isinstance(part, Cells):
                lines += [
                    f"if not nulls & {1 << part.column}:",
                    f"    pos += {_length(part, 0)} + {part.prefix}",
                ]
                continue
            every = sum(1 << i for i in part.columns)
            lines += [f"if not nulls & {every}:", f"    pos += {part.width}", "else:"]
            for i, size in zip(part.columns, part.widths, strict=True):
                lines += [f"    if not nulls & {1 << i}:", f"        pos += {size}"]
        return lines


def _length(cells: Cells, ahead: int) -> str:
    """An expression for the length that stands `ahead` bytes behind `pos`."""
    if cells.prefix == 1:
        return f"buf[pos + {ahead}]"
    if cells.prefix == 2:
        return f"(buf[pos + {ahead}] | buf[pos + {ahead + 1}] << 8)"
    return f"int.from_bytes(buf[pos + {ahead}:pos + {ahead + cells.prefix}], 'little')"


def _indent(lines: list[str], by: int) -> list[str]:
    return ["    " * by + line for line in lines]


def _misfit() -> BinlogError:
    return BinlogError(
        "the row images of an event don't end where the event ends",
        hint="the event is damaged or of a kind that is not known; see the position in the status",
    )


@lru_cache(maxsize=4096)
def walk_of(layout: RowLayout) -> RowWalk:
    """The walk over a layout's images, with all that was generated for it."""
    return RowWalk(layout)
