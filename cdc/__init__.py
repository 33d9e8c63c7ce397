"""Duckling's engine: a MySQL or MariaDB database, continuously equal in a DuckDB file."""

__version__ = "0.1.0"
