"""An hour of everything at once: `make soak`."""
