"""End-to-end tests of the video pipeline on a synthetic street with known classes.

The class map of the street is drawn in flat class colors, encoded, decoded, segmented by a model with a known function,
rendered, encoded, and decoded by PyAV. The tests assert that away from class borders the colors are correct within
`TOLERANCE`, that the classes have the correct positions, and that the frames are in the correct order.
"""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest
from command import MODEL

from rtseg.core.palette import CAMVID, CAMVID_CLASSES, STREET
from rtseg.inference.segmenter import Segmenter
from rtseg.io.options import OutputOptions
from rtseg.render.style import Style
from rtseg.synthetic import SyntheticDrive
from rtseg.video.process import process

FRAMES = 6
STEP = 4  # every 4th frame of the synthetic video, so that consecutive frames differ
TOLERANCE = 6.0
"""Maximum mean absolute difference of inner pixels, 0 to 255, after two encodings in 4:2:0."""

Table = npt.NDArray[np.uint8]
INPUT_COLORS: Table = np.array([STREET[name] for name in CAMVID_CLASSES], dtype=np.uint8)
OTHER_COLORS: Table = np.array([CAMVID[name] for name in CAMVID_CLASSES], dtype=np.uint8)


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter(MODEL)


def ground_truth(width: int, height: int) -> list[npt.NDArray[np.uint8]]:
    drive = SyntheticDrive(width, height, frames=FRAMES * STEP, seed=3)
    return [drive.frame(index * STEP)[1] for index in range(FRAMES)]


def encode(path: Path, labels: list[npt.NDArray[np.uint8]], space: int, full_range: bool, codec: str) -> None:
    """Encode flat class colors, converted by PyAV and tagged with the matrix and range."""
    height, width = labels[0].shape
    colorspace = {1: "ITU709", 6: "ITU601"}[space]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            codec, rate=25, options={"crf": "2", "preset": "ultrafast"} if codec == "libx264" else {}
        )
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.colorspace, context.color_range = space, 2 if full_range else 1
        for index, classes in enumerate(labels):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(INPUT_COLORS[classes]), format="rgb24").reformat(
                format="yuv420p", dst_colorspace=colorspace, dst_color_range="JPEG" if full_range else "MPEG"
            )
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def decode(path: Path, width: int, height: int) -> list[npt.NDArray[np.uint8]]:
    """Decode a file to RGB frames like a player, according to its color tags."""
    with av.open(str(path)) as container:
        frames = []
        for frame in container.decode(video=0):
            rgb = frame.reformat(format="rgb24", src_colorspace=frame.colorspace, src_color_range=frame.color_range)
            frames.append(rgb.to_ndarray()[:height, :width])
        return frames


def inner(classes: npt.NDArray[np.uint8], margin: int = 9) -> npt.NDArray[np.bool_]:
    """Return the pixels whose neighborhood has a single class. Chroma subsampling and scaling can't blur them."""
    kernel = np.ones((margin, margin), np.uint8)
    same: npt.NDArray[np.bool_] = cv2.erode(classes, kernel) == cv2.dilate(classes, kernel)
    return same


def run(segmenter: Segmenter, folder: Path, style: Style, output: OutputOptions, masks: str | None = None) -> Path:
    """Segment `in.mp4` of a folder and return the output."""
    out = folder / "out.mp4"
    process(str(folder / "in.mp4"), str(out), segmenter, style, output, masks=masks and str(folder / masks))
    return out


CASES = [
    (320, 192, 1, False),
    (320, 192, 6, True),
    (642, 362, 1, True),
    (642, 362, 6, False),
    (335, 221, 1, False),
    (335, 221, 6, True),
    (201, 351, 6, False),
]


@pytest.mark.parametrize(("width", "height", "space", "full_range"), CASES)
def test_output_video_has_the_expected_class_colors(
    segmenter: Segmenter, tmp_path: Path, width: int, height: int, space: int, full_range: bool
) -> None:
    labels = ground_truth(width, height)
    odd = width % 2 or height % 2
    source, out = tmp_path / ("in.mkv" if odd else "in.mp4"), tmp_path / "out.mp4"
    encode(source, labels, space, full_range, "ffv1" if odd else "libx264")
    style = Style(view="overlay", alpha=0.5, palette="camvid")
    result = process(str(source), str(out), segmenter, style, OutputOptions(crf=2, preset="ultrafast"))
    assert result.fidelity.ok
    decoded = decode(out, width, height)
    assert len(decoded) == FRAMES
    expected_colors = (INPUT_COLORS.astype(np.float64) + OTHER_COLORS) / 2
    for index, image in enumerate(decoded):
        difference = np.abs(image - expected_colors[labels[index]]).mean(axis=2)
        assert difference[inner(labels[index])].mean() < TOLERANCE
        recovered = np.abs(image[:, :, None].astype(np.float64) - expected_colors).sum(axis=3).argmin(axis=2)
        assert (recovered == labels[index])[inner(labels[index])].mean() > 0.97
        agreement = [(recovered == truth).mean() for truth in labels]
        assert int(np.argmax(agreement)) == index, "frames are out of order"


def test_masks_match_the_ground_truth_in_order(segmenter: Segmenter, tmp_path: Path) -> None:
    labels = ground_truth(320, 192)
    encode(tmp_path / "in.mp4", labels, 1, False, "libx264")
    run(segmenter, tmp_path, Style(), OutputOptions(), masks="masks")
    files = sorted((tmp_path / "masks").glob("*.png"))
    assert [file.name for file in files] == [f"{index:06d}.png" for index in range(FRAMES)]
    for file, truth in zip(files, labels, strict=True):
        mask = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        assert mask.shape == truth.shape
        assert (mask == truth).mean() > 0.97


def test_side_by_side_shows_the_input_on_the_left(segmenter: Segmenter, tmp_path: Path) -> None:
    labels = ground_truth(320, 192)
    encode(tmp_path / "in.mp4", labels, 1, False, "libx264")
    image = decode(run(segmenter, tmp_path, Style("side-by-side"), OutputOptions(crf=5)), 640, 192)[0]
    left = np.abs(image[:, :320] - INPUT_COLORS[labels[0]].astype(np.float64)).mean(axis=2)
    assert left[inner(labels[0])].mean() < TOLERANCE


def test_processing_twice_gives_identical_masks(segmenter: Segmenter, tmp_path: Path) -> None:
    encode(tmp_path / "in.mp4", ground_truth(320, 192), 1, False, "libx264")
    for name in ("one.mkv", "two.mkv"):
        run(segmenter, tmp_path, Style(), OutputOptions(), masks=name)
    one, two = (
        [frame.to_ndarray() for frame in av.open(str(tmp_path / name)).decode(video=0)]
        for name in ("one.mkv", "two.mkv")
    )
    assert len(one) == FRAMES
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


def test_real_videos_keep_frames_rate_and_audio(segmenter: Segmenter, clips: Path, tmp_path: Path) -> None:
    for name, frames, size, rate in (
        ("cambridge_15fps.mp4", 101, (480, 360), 15),
        ("highway_540p25.mp4", 221, (960, 540), 25),
    ):
        process(str(clips / name), str(tmp_path / name), segmenter, Style(), OutputOptions(preset="ultrafast"))
        with av.open(str(tmp_path / name)) as container:
            stream = container.streams.video[0]
            assert (stream.width, stream.height) == size
            assert stream.average_rate == rate
            assert sum(1 for _ in container.decode(video=0)) == frames
    packets = []
    for path in (clips / "highway_540p25.mp4", tmp_path / "highway_540p25.mp4"):
        with av.open(str(path)) as container:
            packets.append([(bytes(p), p.pts, p.time_base) for p in container.demux(audio=0) if p.size])
    assert len(packets[0]) > 100
    assert packets[0] == packets[1]
