"""OpenCV cameras, for systems without V4L2: reading, and reconnecting after the camera was unplugged."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import cv2
import pytest
from live_doubles import adds_up, rises, run_inputs, seconds_in
from media import number_of, write_video
from test_live_sources import take

from rtseg.core.errors import SourceError
from rtseg.io.inputs import camera
from rtseg.live.controls import Controls
from rtseg.live.inputs import find_inputs
from rtseg.live.options import Outputs


class UnpluggedCamera:
    """Replacement of `cv2.VideoCapture`: a file at 30 FPS, unplugged after 20 frames, available again at the third attempt."""

    def __init__(self, video: Path, controls: Controls) -> None:
        self._video, self._controls = video, controls
        self.opened = 0

    def __call__(self, number: int) -> UnpluggedCamera:
        assert number == 0
        self.opened += 1
        self._read = 0
        self._capture = self._real(str(self._video))
        return self

    _real = cv2.VideoCapture

    def read(self) -> tuple[bool, object]:
        self._read += 1
        if self.opened == 2 or (self.opened == 1 and self._read > 20):
            return False, None
        if self.opened == 3 and self._read > 40:
            self._controls.quit()
        time.sleep(1 / 30)
        return self._capture.read()  # type: ignore[no-any-return]

    def set(self, property_id: int, value: float) -> bool:
        return True

    def get(self, property_id: int) -> float:
        return 30.0

    def release(self) -> None:
        self._capture.release()


@pytest.fixture
def unplugged_camera(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> UnpluggedCamera:
    video = write_video(tmp_path / "seen.mp4", frames=100, rate=30)
    unplugged_camera = UnpluggedCamera(video, Controls())
    monkeypatch.setattr(camera, "_LINUX", False)
    monkeypatch.setattr(camera.cv2, "VideoCapture", unplugged_camera)
    return unplugged_camera


def test_opencv_camera_yields_all_frames(unplugged_camera: UnpluggedCamera) -> None:
    source = find_inputs(cameras=["0"])[0].connect()
    assert [number_of(frame) for frame in take(source, 15)] == list(range(15))
    assert (source.info.width, source.info.height, source.info.frame_rate) == (96, 64, 30)


def test_reconnects_after_camera_is_unplugged_and_plugged_in(unplugged_camera: UnpluggedCamera, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    inputs, outputs = find_inputs(cameras=["0"]), Outputs(record=str(out))
    report = run_inputs(inputs, outputs, controls=unplugged_camera._controls)
    assert unplugged_camera.opened == 3
    assert report["failed"] == []
    assert report["disconnects"]["count"] == 1
    assert report["disconnects"]["seconds"] > 0.5
    assert adds_up(report)
    seconds = seconds_in(out)
    assert len(seconds) == report["frames"]["written"] > 5
    assert rises(seconds)
    assert max(after - before for before, after in itertools.pairwise(seconds)) > 0.5, "the recording keeps the gap"


def test_missing_camera_raises_source_error(unplugged_camera: UnpluggedCamera) -> None:
    unplugged_camera.opened = 1
    with pytest.raises(SourceError, match="camera 0: it delivers no frame"):
        find_inputs(cameras=["0"])[0].connect()
