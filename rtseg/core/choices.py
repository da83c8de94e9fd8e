"""Values of options that several packages share."""

from __future__ import annotations

from typing import Literal

View = Literal["overlay", "mask", "side-by-side"]
"""Rendered view: classes over the frame, classes only, or the frame next to its classes."""

Fit = Literal["letterbox", "stretch"]
"""Scaling to the network's input size: keep the aspect ratio and pad, or stretch."""

Decoder = Literal["software", "auto", "nvdec", "gstreamer"]
"""Video decoder: FFmpeg on the CPU, the best available one, an NVIDIA GPU's, or a Jetson's through GStreamer."""

Encoder = Literal["software", "auto", "nvenc", "gstreamer"]
"""Video encoder: FFmpeg on the CPU, the best available one, an NVIDIA GPU's, or a Jetson's through GStreamer."""
