"""The DuckDB side: the file, its tables, and the one thread that writes them."""
