"""Test double of a machine on which the GPU path runs."""

from __future__ import annotations

import ctypes
import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from building import build
from gpu_doubles import Driver, Nvdec
from media import read, write_video
from nvidia_machine import Jetson
from onnx_models import contract_model

from rtseg.core.frame import Frame
from rtseg.inference.segmenter import Segmenter
from rtseg.io.options import InputOptions, OutputOptions
from rtseg.render.style import Style
from rtseg.video.process import process

SMALL = (128, 96)
PLAIN_STYLE = Style()


class GpuMachine:
    """Test double of a Jetson whose decoder leaves frames in GPU memory, with an engine."""

    def __init__(self, patch: pytest.MonkeyPatch, version: str, library: ctypes.CDLL, folder: Path) -> None:
        self.jetson = Jetson(patch, version, driver=lambda cudart: Driver(cudart, library))
        self.cudart, self.driver = self.jetson.cudart, self.jetson.driver
        self.nvdec = Nvdec(patch, self.cudart)
        patch.setattr("rtseg.pipeline.gpu_processor.try_nvdec", lambda: None)
        self.folder = folder
        self.model = contract_model(folder / "colors.onnx")
        self.engine = build(self.model, target="tensorrt", out=folder, verify=False).path

    def run(
        self,
        video: Path,
        out: str = "out.mkv",
        decoder: str = "nvdec",
        style: Style = PLAIN_STYLE,
        engine: Path | None = None,
    ) -> dict[str, Any]:
        """Run `rtseg video` with a lossless codec, to compare pixels."""
        output, reading = OutputOptions("ffv1"), InputOptions(decoder=decoder)
        with Segmenter(engine or self.engine, backend="tensorrt") as segmenter:
            return process(str(video), str(self.folder / out), segmenter, style, output, reading).to_dict()

    def all_freed(self) -> bool:
        """Return True if all GPU memory and modules were freed."""
        gc.collect()  # a traceback may reference frames
        return not self.cudart.alive and self.driver.modules == 0

    def read_output(self, out: str = "out.mkv") -> list[Frame]:
        return read(self.folder / out)

    def assert_output_equals(self, other: str) -> None:
        """Compare all pixels of `out.mkv` with those of another output."""
        for frame, expected in zip(self.read_output(), self.read_output(other), strict=True):
            for plane, expected_plane in zip(frame.planes, expected.planes, strict=True):
                np.testing.assert_array_equal(plane, expected_plane)


def make_video(folder: Path, **options: Any) -> Path:
    return write_video(folder / "drive.mp4", **{"frames": 40, "size": SMALL, **options})


def path_note(result: dict[str, Any]) -> str:
    notes = [note for note in result["notes"] if note.startswith("path: ")]
    assert len(notes) == 1, result["notes"]
    return str(notes[0])
