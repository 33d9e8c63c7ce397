"""`python -m cdc.cli`."""

from __future__ import annotations

from cdc.cli import main

main()
