"""Small valid videos for the fuzzer. Each frame displays its number; those of the rear camera display 255 minus it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from media import Audio, Text, write_video

REAR = "rear"
"""Prefix of the file names of the rear camera."""

_QUICK = {"preset": "ultrafast"}
_PRECISE = {"preset": "veryfast", "bf": "2"}


def seeds(folder: Path) -> list[Path]:
    """Write one small file of each kind into a folder. Return the files in order of their names."""
    subtitles = Text([(0.1, 0.3, "left"), (0.4, 0.6, "right")])
    vpx = {"deadline": "realtime", "cpu-used": "8"}
    audio = Audio(seconds=1.2)
    times_ms = [0, 40, 80, 150, 153, 200, 290, 333, 366, 400, 520, 560, 600, 601, 700, 740, 780, 820, 860, 900]
    uneven = {"frames": len(times_ms), "pts": times_ms, "time_base": Fraction(1, 1000)}
    fragments = {"movflags": "frag_keyframe+empty_moov"}

    def video(name: str, **options: Any) -> Path:
        return write_video(folder / name, **{"frames": 30, "gop": 10, **options})

    files = [
        video("plain.mp4", after=[audio], options=_QUICK),
        video("b-frames.mp4", after=[audio], options=_PRECISE, container_options={"movflags": "faststart"}),
        video("fragments.mp4", after=[audio], options=_QUICK, container_options=fragments),
        write_video(folder / "turned.mp4", frames=20, options=_QUICK, turn=_clockwise, rotation=(90, False, False)),
        video("two-audio-tracks.mov", before=[Audio("pcm_s16le")], after=[audio], options=_PRECISE),
        write_video(folder / "jpeg.mov", frames=20, codec="mjpeg", pix_fmt="yuvj420p", full_range=True),
        video("plain.mkv", before=[Audio("flac")], after=[subtitles], options=_QUICK),
        video("uneven.mkv", **uneven, after=[audio], options=_PRECISE),
        write_video(folder / "vp9.webm", frames=20, codec="libvpx-vp9", options=vpx, after=[Audio("libopus")]),
        video("plain.ts", after=[audio], options=_QUICK),
        video("b-frames.ts", after=[Audio("mp2", seconds=1.2)], options=_PRECISE),
        video("mpeg2.ts", codec="mpeg2video", b_frames=2, after=[Audio("ac3")]),
        video("rear.mp4", turn=_inverted, after=[audio], options=_PRECISE),
        video("rear-small.mkv", gop=None, size=(64, 48), turn=_inverted, options=_QUICK),
        video("rear-large.ts", size=(128, 96), turn=_inverted, options=_QUICK),
        video("plain.avi", codec="mpeg4", after=[Audio("libmp3lame")]),
        video("plain.mpg", codec="mpeg2video", after=[Audio("mp2")]),
        video("b-frames.mpg", codec="mpeg2video", b_frames=2, after=[Audio("mp2")]),
        video("plain.h264", options=_QUICK),
        write_video(folder / "plain.gif", frames=10, codec="gif", pix_fmt="rgb8", rate=10),
    ]
    return sorted(files)


def _clockwise(image: np.ndarray) -> np.ndarray:
    return np.rot90(image, -1)


def _inverted(image: np.ndarray) -> np.ndarray:
    height = len(image)
    image[height // 3 : 2 * height // 3] = 255 - image[height // 3 : 2 * height // 3]
    return image
