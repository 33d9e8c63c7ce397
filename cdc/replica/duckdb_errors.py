"""DuckDB's errors, as ours."""

from __future__ import annotations

import re

import duckdb

from cdc.errors import ReplicaError, ReplicaFatalError, RowRefusedError

OUT_OF_MEMORY = "REPLICA_MEMORY"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether DuckDB failed for its memory limit; a commit that does says so in words alone."""
    text = str(error)
    return isinstance(error, duckdb.OutOfMemoryException) or (
        isinstance(error, duckdb.Error)
        and ("failed to pin block" in text or "could not allocate block" in text)
    )


def translate(error: duckdb.Error) -> ReplicaError:
    """The error of ours for one that DuckDB raised while writing. Values in its text are left out."""
    kind = error.__class__.__name__.removesuffix("Exception")
    if isinstance(error, duckdb.FatalException | duckdb.InternalException) or "has been invalidated" in str(
        error
    ):
        return ReplicaFatalError(
            f"DuckDB gave up on the open file ({_cause(error)})",
            hint="it is closed and opened again; nothing that was committed is lost",
        )
    if isinstance(
        error, duckdb.ConstraintException | duckdb.ConversionException | duckdb.OutOfRangeException
    ):
        return RowRefusedError(
            f"DuckDB refuses a row ({kind}: {_cause(error)})",
            hint="mend the row at the source, then copy the table again: POST /sync/table/NAME",
        )
    if is_out_of_memory(error):
        return ReplicaError(
            "DuckDB ran out of the memory it may use",
            hint="raise DUCKDB_MEMORY_LIMIT, or lower BATCH_SIZE",
            code=OUT_OF_MEMORY,
        )
    if isinstance(error, duckdb.IOException) or "could not write" in str(error).lower():
        return ReplicaError(
            f"DuckDB can't write its file ({_cause(error)})",
            hint="check the disk: space, health, permissions",
        )
    return ReplicaError(
        f"DuckDB refused a change ({kind}: {_cause(error)})", hint="see the log of the service"
    )


def first_line(text: str) -> str:
    """Of a message, without DuckDB's stack."""
    return text.splitlines()[0][:200] if text else ""


def _cause(error: duckdb.Error) -> str:
    """The first line of an error without what stands in quotes: that may be a row's value."""
    return re.sub(r"(\"[^\"]*\"|'[^']*')", "…", first_line(str(error)))
