"""GStreamer in a separate process, with frames through a pipe: no Python bindings, and a crash there does not end rtseg."""
