"""docs/failure-modes.md: every case is there, and every test that it names exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "failure-modes.md").read_text()
LINES = re.findall(r"^\| (\d+) \| (.+?) \| (.+) \|$", PAGE, re.MULTILINE)


def test_every_number_has_one_line() -> None:
    assert [int(number) for number, _, _ in LINES] == list(range(1, 159))


def test_every_line_names_a_test_or_says_why_there_is_none() -> None:
    bare = [
        number
        for number, _, shown in LINES
        if "::test_" not in shown and not re.search(r"\w{4,}.*\.$", shown)
    ]
    assert bare == []


def test_every_named_test_exists() -> None:
    named = {tuple(found.split("::")) for found in re.findall(r"`(tests/[^`]+::test_\w+)`", PAGE)}
    assert named
    missing = [
        f"{path}::{name}"
        for path, name in sorted(named)
        if not (ROOT / path).is_file()
        or name
        not in {
            node.name
            for node in ast.walk(ast.parse((ROOT / path).read_text()))
            if isinstance(node, ast.FunctionDef)
        }
    ]
    assert missing == []
