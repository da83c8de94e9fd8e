"""GStreamer in a separate process, with frames through a pipe: no Python bindings, and a crash there does not end rtseg.

process.py    start, monitor and stop gst-launch-1.0
launch.py     the same for a pipeline with a password, which is not passed as arguments
pipelines.py  pipelines for this machine: NVIDIA's elements on a Jetson, software elements elsewhere
gdp.py        frames in the pipe: GStreamer Data Protocol and raw video
"""
