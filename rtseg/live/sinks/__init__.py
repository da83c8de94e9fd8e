"""Outputs of `rtseg live`: web page, window, recording, push, snapshots, JSON lines."""
