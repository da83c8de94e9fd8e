"""Decode, segment, render and encode at the same time, on CPU or GPU."""
