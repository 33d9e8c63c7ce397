"""Watermark sync: tables kept by asking what is newer, where the binary log can't be followed."""
