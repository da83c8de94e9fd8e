"""Sinks of a live run: web page, window, recording, push, snapshots, JSON lines."""
