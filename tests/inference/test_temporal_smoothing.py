"""Temporal smoothing: no change at momentum 0, less noise, a reset at cuts and gaps, and independent streams."""

from __future__ import annotations

import itertools
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
from typer.testing import CliRunner

from rtseg import Segmenter, SyntheticDrive
from rtseg.cli.app import app
from rtseg.core.errors import BackendError, OptionError
from rtseg.core.frame import Frame, rgb_frame
from rtseg.core.palette import CAMVID_CLASSES, STREET
from rtseg.inference import open_backend, open_smooth_backend
from rtseg.inference.bundled_models import find_model
from rtseg.inference.temporal_smoothing import TemporalSmoothing
from rtseg.synthetic.video_file import write_video

MODEL = Path(__file__).parents[1] / "data" / "nearest-color.onnx"
COLORS = np.array([STREET[name] for name in CAMVID_CLASSES], dtype=np.uint8)
Image = npt.NDArray[np.uint8]
NOISE = 90.0
"""Standard deviation of the noise, large enough to change the nearest color of some pixels."""


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter(MODEL, smooth=0.8)


def scene(seed: int = 0) -> Image:
    return next(iter(SyntheticDrive(160, 96, frames=1, seed=seed)))[0]


def noisy(image: Image, count: int) -> list[Image]:
    rng = np.random.default_rng(0)
    return [(image + rng.normal(0, NOISE, image.shape)).clip(0, 255).astype(np.uint8) for _ in range(count)]


def frames(images: list[Image], seconds: float = 1 / 15) -> list[Frame]:
    step = Fraction(seconds).limit_denominator(1000)
    return [replace(rgb_frame(image, i), time_base=step) for i, image in enumerate(images)]


def changes(maps: list[Image]) -> float:
    """Return the mean share of pixels whose class differs between consecutive maps."""
    return float(np.mean([(current != previous).mean() for previous, current in itertools.pairwise(maps)]))


@pytest.mark.parametrize("model", [MODEL, find_model("nano")], ids=["nearest-color", "nano"])
def test_momentum_0_is_bit_identical_to_the_plain_model(model: Path) -> None:
    plain = open_backend("openvino", model, size=(160, 96))
    smooth = open_smooth_backend("openvino", model, size=(160, 96))
    noise = np.random.default_rng(1).integers(0, 256, (96, 160, 3), np.uint8)
    scores = None
    for image in (scene(), noise, scene(3)):
        expected = plain.infer(image[None])
        assert np.array_equal(smooth.infer(image[None]), expected)
        classes, scores = smooth.infer_next(image[None], scores, 0.0)
        assert np.array_equal(classes, expected)
    assert scores is not None
    assert scores.dtype == (np.float32 if model == MODEL else np.float16)


def test_scores_are_the_exponential_moving_average() -> None:
    smooth = open_smooth_backend("openvino", MODEL, size=(64, 64))
    dark, bright = (np.full((1, 64, 64, 3), level, np.uint8) for level in (20, 200))
    _, first = smooth.infer_next(dark, None, 0.0)
    _, second = smooth.infer_next(bright, None, 0.0)
    _, mixed = smooth.infer_next(bright, first, 0.75)
    expected = 0.75 * first.astype(np.float32) + 0.25 * second.astype(np.float32)
    assert np.allclose(mixed, expected, rtol=0.02, atol=0.02 * float(np.abs(expected).max()))


def test_constant_scene_is_not_reset(segmenter: Segmenter) -> None:
    smoothing = segmenter.new_smoothing()
    maps = [segmenter.segment(frame, smoothing=smoothing) for frame in frames([scene()] * 12)]
    assert changes(maps) < 0.001
    assert smoothing is not None
    assert smoothing.cuts == 0


def test_noise_is_reduced(segmenter: Segmenter) -> None:
    smoothing, clean = segmenter.new_smoothing(), segmenter.segment(rgb_frame(scene()))
    unsmoothed = [segmenter.segment(frame) for frame in frames(noisy(scene(), 12))]
    smoothed = [segmenter.segment(frame, smoothing=smoothing) for frame in frames(noisy(scene(), 12))]
    assert changes(unsmoothed) > 0.1, "the noise changes too few classes for this test"
    assert changes(smoothed[4:]) < changes(unsmoothed) / 2
    assert (smoothed[-1] == clean).mean() > (unsmoothed[-1] == clean).mean()


def test_cut_resets_the_scores(segmenter: Segmenter) -> None:
    other = 255 - scene()
    smoothing = segmenter.new_smoothing()
    assert smoothing is not None
    maps = [
        segmenter.segment(frame, smoothing=smoothing) for frame in frames([*noisy(scene(), 5), other, *noisy(other, 2)])
    ]
    assert np.array_equal(maps[5], segmenter.segment(rgb_frame(other)))
    assert smoothing.cuts == 1


def test_size_change_and_gap_reset_the_scores(segmenter: Segmenter) -> None:
    smoothing = segmenter.new_smoothing()
    assert smoothing is not None
    for frame in frames(noisy(scene(), 3)):
        segmenter.segment(frame, smoothing=smoothing)
    wide = next(iter(SyntheticDrive(160, 64, frames=1)))[0]
    for image in (wide, scene()):
        frame = replace(rgb_frame(image), pts=4)
        assert np.array_equal(segmenter.segment(frame, smoothing=smoothing), segmenter.segment(frame))
    delayed = replace(rgb_frame(noisy(scene(), 1)[0]), pts=4 + 50)  # at 25 fps
    assert np.array_equal(segmenter.segment(delayed, smoothing=smoothing), segmenter.segment(delayed))
    assert smoothing.cuts == 3


def test_streams_are_independent(segmenter: Segmenter) -> None:
    streams = [frames(noisy(scene(seed), 6)) for seed in (0, 3)]
    separate = []
    for stream in streams:
        smoothing = segmenter.new_smoothing()
        separate.append([segmenter.segment(frame, smoothing=smoothing) for frame in stream])
    smoothings = [segmenter.new_smoothing() for _ in streams]
    interleaved: list[list[Image]] = [[], []]
    for pair in zip(*streams, strict=True):
        for number, frame in enumerate(pair):
            interleaved[number].append(segmenter.segment(frame, smoothing=smoothings[number]))
    assert np.array_equal(separate, interleaved)


def test_synthetic_video_has_no_cuts() -> None:
    smoothing = TemporalSmoothing(0.5)
    for number, (image, _) in enumerate(SyntheticDrive(160, 96, frames=30, fps=15)):
        smoothing.momentum_for(replace(rgb_frame(image, number), time_base=Fraction(1, 15)), image)
    assert smoothing.cuts == 0


def test_invalid_momentum_and_unsupported_backend_are_refused() -> None:
    with pytest.raises(OptionError, match=r"--smooth is 0\.95; give 0 \(off\) to 0\.9"):
        Segmenter(MODEL, smooth=0.95)
    with pytest.raises(BackendError, match="--backend openvino"):
        open_smooth_backend("tensorrt", MODEL)
    assert Segmenter(MODEL).new_smoothing() is None


def test_video_command_smooths_class_maps(tmp_path: Path) -> None:
    """The masks change less, and the fidelity check passes."""
    video = tmp_path / "drive.mp4"
    write_video(SyntheticDrive(160, 96, frames=16, fps=15), str(video))
    mask_changes = {}
    for smooth in ("0", "0.9"):
        masks = tmp_path / f"{smooth}.mkv"
        arguments = ["video", str(video), "-o", str(tmp_path / "out.mp4"), "--masks", str(masks), "--quiet"]
        arguments += ["--model", str(MODEL), "--smooth", smooth]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
        with av.open(str(masks)) as container:
            mask_changes[smooth] = changes([frame.to_ndarray() for frame in container.decode(video=0)])
    assert mask_changes["0.9"] < mask_changes["0"]
    result = CliRunner().invoke(app, ["video", str(video), "-o", str(tmp_path / "out.mp4"), "--smooth", "1"])
    assert result.exit_code == 1
    assert "--smooth is 1;" in result.output
