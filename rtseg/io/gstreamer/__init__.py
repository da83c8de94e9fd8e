"""GStreamer in a process of its own, with frames going through a pipe: no Python bindings, and its crash is not ours.

process.py   gst-launch-1.0: started, watched, stopped, and what it said when it failed
launch.py    the same for a pipeline with a password, which gets no arguments that others could read
elements.py  which elements do the work on this machine: NVIDIA's on a Jetson, software elsewhere
packets.py   frames in the pipe: the GStreamer Data Protocol and GStreamer's layout of raw pictures
"""
