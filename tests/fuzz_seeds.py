"""Small valid videos for the fuzzer. Each frame displays its number; those of the rear camera display 255 minus it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

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
    uneven = [0, 40, 80, 150, 153, 200, 290, 333, 366, 400, 520, 560, 600, 601, 700, 740, 780, 820, 860, 900]
    files = [
        write_video(folder / "plain.mp4", frames=30, gop=10, after=[audio], options=_QUICK),
        write_video(
            folder / "b-frames.mp4",
            frames=30,
            gop=10,
            after=[audio],
            options=_PRECISE,
            container_options={"movflags": "faststart"},
        ),
        write_video(
            folder / "fragments.mp4",
            frames=30,
            gop=10,
            after=[audio],
            options=_QUICK,
            container_options={"movflags": "frag_keyframe+empty_moov"},
        ),
        write_video(folder / "turned.mp4", frames=20, options=_QUICK, turn=_clockwise, rotation=(90, False, False)),
        write_video(
            folder / "two-audio-tracks.mov",
            frames=30,
            gop=10,
            before=[Audio("pcm_s16le")],
            after=[audio],
            options=_PRECISE,
        ),
        write_video(folder / "jpeg.mov", frames=20, codec="mjpeg", pix_fmt="yuvj420p", full_range=True),
        write_video(folder / "plain.mkv", frames=30, gop=10, before=[Audio("flac")], after=[subtitles], options=_QUICK),
        write_video(
            folder / "uneven.mkv",
            frames=len(uneven),
            pts=uneven,
            time_base=Fraction(1, 1000),
            gop=10,
            after=[audio],
            options=_PRECISE,
        ),
        write_video(folder / "vp9.webm", frames=20, codec="libvpx-vp9", options=vpx, after=[Audio("libopus")]),
        write_video(folder / "plain.ts", frames=30, gop=10, after=[audio], options=_QUICK),
        write_video(folder / "b-frames.ts", frames=30, gop=10, after=[Audio("mp2", seconds=1.2)], options=_PRECISE),
        write_video(folder / "mpeg2.ts", frames=30, gop=10, codec="mpeg2video", b_frames=2, after=[Audio("ac3")]),
        write_video(folder / "rear.mp4", frames=30, gop=10, turn=_inverted, after=[audio], options=_PRECISE),
        write_video(folder / "rear-small.mkv", frames=30, size=(64, 48), turn=_inverted, options=_QUICK),
        write_video(folder / "rear-large.ts", frames=30, gop=10, size=(128, 96), turn=_inverted, options=_QUICK),
        write_video(folder / "plain.avi", frames=30, gop=10, codec="mpeg4", after=[Audio("libmp3lame")]),
        write_video(folder / "plain.mpg", frames=30, gop=10, codec="mpeg2video", after=[Audio("mp2")]),
        write_video(folder / "b-frames.mpg", frames=30, gop=10, codec="mpeg2video", b_frames=2, after=[Audio("mp2")]),
        write_video(folder / "plain.h264", frames=30, gop=10, options=_QUICK),
        write_video(folder / "plain.gif", frames=10, codec="gif", pix_fmt="rgb8", rate=10),
    ]
    return sorted(files)


def _clockwise(image: np.ndarray) -> np.ndarray:
    return np.rot90(image, -1)


def _inverted(image: np.ndarray) -> np.ndarray:
    height = len(image)
    image[height // 3 : 2 * height // 3] = 255 - image[height // 3 : 2 * height // 3]
    return image
