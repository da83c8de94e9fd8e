"""Benchmarks for `rtseg bench`."""
