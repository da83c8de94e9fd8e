"""Frames in and out: files, cameras, network streams and containers."""
