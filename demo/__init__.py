"""The demo, run by `make demo`."""
