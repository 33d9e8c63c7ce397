"""The MySQL side: sessions, catalogue, preflight, consistent copies and the binary log."""
