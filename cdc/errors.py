"""Every error that Duckling raises on purpose.

DucklingError                     code, one sentence, a hint for the operator
├── ConfigError                   a setting is wrong, missing or unknown
├── SourceError                   the MySQL side
│   ├── SourceUnavailableError    no connection now; trying again is right
│   ├── SourceAccessError         the server refuses the account, the password or a privilege
│   ├── PreflightError            the server can't be replicated as it is configured
│   ├── SourceMismatchError       another server, or one that lags behind our position
│   ├── PositionLostError         the binary log at our position is gone: copy again
│   ├── BinlogError               bytes of the binary log that we can't read or must not skip
│   ├── RolledBackPartError       a part of a transaction was undone after it was handed on: read it again, whole
│   └── SnapshotError             a consistent copy could not be taken
├── ValueDecodeError              a value that can't be converted exactly
├── SchemaMismatchError           rows that don't fit the columns of the copy
├── ReplicaError                  the DuckDB side
│   ├── ReplicaLockedError        another process has the file open
│   ├── ReplicaFileError          the file or its folder can't be used
│   ├── ReplicaFatalError         DuckDB gave up on the open file; reopen it
│   ├── RowRefusedError           a row that DuckDB does not take
│   └── DivergenceError           the copy lacks what the source says it has
├── NotFoundError                 no such database, table or run
├── ConflictError                 the same work is already under way
├── NotPossibleError              a request that can be read but not fulfilled
├── QueryError                    a client's SQL is refused or fails
│   ├── QueryTimeoutError         it takes longer than it may
│   └── ResultTooLargeError       its result is larger than it may be
├── InterruptedRunError           a run that the service's end cut short
└── StoppedError                  the service is stopping
    └── RunCancelledError         somebody cancelled the run

Errors of libraries are translated once, where they are met, so that callers handle this tree alone.
"""

from __future__ import annotations


class DucklingError(Exception):
    """Base of all. `message` is one sentence; `hint` says what to do; neither carries values or secrets.

    `code` is stable, for scripts; `status` is the HTTP status that the API answers with;
    `retryable` tells a pipeline that trying again by itself can help.
    """

    code = "INTERNAL"
    status = 500
    retryable = False
    title = "Internal error"

    def __init__(
        self, message: str, *, hint: str = "", table: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.table = table
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class ConfigError(DucklingError):
    """A setting is wrong, missing or unknown."""

    code = "CONFIG"
    status = 422
    title = "Wrong setting"


class SourceError(DucklingError):
    """The MySQL side."""

    code = "SOURCE"
    status = 503
    title = "Source failed"


class SourceUnavailableError(SourceError):
    """No connection to the source now; trying again is right."""

    code = "SOURCE_UNAVAILABLE"
    retryable = True
    title = "Source unavailable"


class SourceAccessError(SourceError):
    """The server refuses the account, its password or a privilege.

    Retried with an alarm: a password may be under rotation (credentials are read at each connect).
    """

    code = "SOURCE_ACCESS_DENIED"
    retryable = True
    title = "Source refuses access"


class PreflightError(SourceError):
    """The server can't be replicated as it is configured."""

    code = "PREFLIGHT"
    status = 422
    title = "Source not ready"


class SourceMismatchError(SourceError):
    """The source is not the server (or not the history) that this copy was made from."""

    code = "SOURCE_MISMATCH"
    title = "Different source"


class PositionLostError(SourceError):
    """The binary log at our position is gone from the source: a full copy is needed."""

    code = "POSITION_LOST"
    title = "Position lost"


class BinlogError(SourceError):
    """The binary log holds bytes that we can't read, or an event that must not be skipped."""

    code = "BINLOG"
    title = "Binary log not readable"


class RolledBackPartError(BinlogError):
    """A transaction undoes rows that were handed on as a part of it. It is read again, and handed on whole."""

    code = "ROLLED_BACK_PART"
    retryable = True


class SnapshotError(SourceError):
    """A consistent copy could not be taken."""

    code = "SNAPSHOT"
    title = "Copy failed"


class ValueDecodeError(DucklingError):
    """A value that can't be converted exactly."""

    code = "VALUE"
    status = 422
    title = "Value not convertible"


class SchemaMismatchError(DucklingError):
    """Rows of the binary log don't fit the columns of the copy."""

    code = "SCHEMA_MISMATCH"
    status = 422
    title = "Schema changed"


class ReplicaError(DucklingError):
    """The DuckDB side."""

    code = "REPLICA"
    status = 503
    title = "DuckDB failed"


class ReplicaLockedError(ReplicaError):
    """Another process has the DuckDB file open."""

    code = "REPLICA_LOCKED"
    title = "DuckDB file locked"


class ReplicaFileError(ReplicaError):
    """The DuckDB file or its folder can't be used."""

    code = "REPLICA_FILE"
    title = "DuckDB file unusable"


class ReplicaFatalError(ReplicaError):
    """DuckDB gave up on the open file; it must be closed and opened again."""

    code = "REPLICA_FATAL"
    retryable = True
    title = "DuckDB stopped"


class RowRefusedError(ReplicaError):
    """A row that DuckDB, or the way to it, does not take; `table` says whose."""

    code = "ROW_REFUSED"
    status = 422
    title = "Row refused"


class DivergenceError(ReplicaError):
    """The copy lacks rows that the source says it has."""

    code = "DIVERGED"
    title = "Copy differs"


class NotFoundError(DucklingError):
    """No such database, table or run (`code` says which)."""

    code = "NOT_FOUND"
    status = 404
    title = "Not found"


class ConflictError(DucklingError):
    """The same work is already under way."""

    code = "SYNC_ALREADY_RUNNING"
    status = 409
    title = "Sync already running"


class NotPossibleError(DucklingError):
    """A request that can be read but not fulfilled."""

    code = "NOT_POSSIBLE"
    status = 422
    title = "Not possible"


class QueryError(DucklingError):
    """A client's SQL is refused or fails."""

    code = "QUERY"
    status = 400
    title = "Query refused"


class QueryTimeoutError(QueryError):
    """A client's SQL takes longer than it may."""

    code = "QUERY_TIMEOUT"
    status = 422
    title = "Query timed out"


class ResultTooLargeError(QueryError):
    """A client's SQL has a result larger than the service answers; `limit` in bytes, where it is known."""

    code = "RESULT_TOO_LARGE"
    status = 422
    title = "Result too large"

    def __init__(self, limit: int | None) -> None:
        most = "the service answers" if limit is None else f"{limit} bytes"
        super().__init__(
            f"the result is larger than {most}",
            hint="select fewer columns or rows, or ask for CSV, Arrow or Parquet with the Accept header",
        )


class StoppedError(DucklingError):
    """The service is stopping."""

    code = "STOPPING"
    status = 503
    title = "Stopping"


class InterruptedRunError(DucklingError):
    """The service ended while the run was under way; what it had not made live is dropped."""

    code = "INTERRUPTED"
    status = 503
    title = "Interrupted"


class RunCancelledError(StoppedError):
    """Somebody cancelled the sync; what it had not made live is dropped."""

    code = "SYNC_CANCELLED"
    status = 409
    title = "Sync cancelled"

    @classmethod
    def of(cls) -> RunCancelledError:
        """The error of every cancelled sync."""
        return cls("the sync was cancelled", hint="start it again")


def recalled(message: str, code: str | None) -> DucklingError:
    """The error of an earlier run, of which message and code were recorded."""
    error = DucklingError(message, hint="start it again", code=code)
    kinds = [DucklingError]
    while kinds:
        kind = kinds.pop()
        if kind.code == code:
            error.status, error.title = kind.status, kind.title
            break
        kinds += kind.__subclasses__()
    return error


def as_duckling(failure: BaseException, what: str) -> DucklingError:
    """`failure` itself, or an error of ours for one that nobody foresaw; `what` failed by it."""
    if isinstance(failure, DucklingError):
        return failure
    error = DucklingError(
        f"{what} failed in a way that is not foreseen ({failure.__class__.__name__})",
        hint="see the log of the service",
    )
    error.__cause__ = failure
    return error
