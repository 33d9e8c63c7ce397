"""The figures of speed: `make bench`, or `python -m tests.benchmarks --help`."""
