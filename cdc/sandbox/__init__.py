"""Throw-away servers and a sample shop: what the demo, the tests and the benchmarks run on."""
