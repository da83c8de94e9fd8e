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
from command import MODEL
from typer.testing import CliRunner

from rtseg import Segmenter, SyntheticDrive
from rtseg.cli.app import app
from rtseg.core.errors import BackendError, OptionError
from rtseg.core.frame import Frame, rgb_frame
from rtseg.inference.bundled_models import find_model
from rtseg.inference.temporal_smoothing import TemporalSmoothing
from rtseg.synthetic.video_file import write_video

Image = npt.NDArray[np.uint8]
NOISE = 90.0
"""Standard deviation of the noise, large enough to change the nearest color of some pixels."""


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter(MODEL, smooth=0.8)


@pytest.fixture
def smoothing() -> TemporalSmoothing:
    return TemporalSmoothing(0.8)


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


def smooth_over(smoothing: TemporalSmoothing, scores: list[float]) -> npt.NDArray[np.float32]:
    """Return the average after frames without a cut, each with the same score everywhere."""
    for frame, score in zip(frames([scene()] * len(scores)), scores, strict=True):
        average = smoothing.smooth(frame, scene(), np.full((3, 6, 10), score, np.float16))
    return average


def test_scores_are_the_exponential_moving_average() -> None:
    average = smooth_over(TemporalSmoothing(0.75), [8.0, 16.0, 0.0])
    assert (average.dtype, average.shape) == (np.float32, (3, 6, 10))
    np.testing.assert_allclose(average, 0.75 * (0.75 * 8 + 0.25 * 16) + 0.25 * 0)


def test_scores_of_another_size_start_again() -> None:
    smoothing = TemporalSmoothing(0.5)
    smooth_over(smoothing, [8.0, 8.0])
    other = np.ones((3, 4, 10), np.float32)
    np.testing.assert_array_equal(smoothing.smooth(frames([scene()])[0], scene(), other), other)


def test_momentum_0_is_bit_identical_to_no_smoothing(segmenter: Segmenter) -> None:
    smoothing = TemporalSmoothing(0.0)
    for frame in frames(noisy(scene(), 3)):
        assert np.array_equal(segmenter.segment(frame, smoothing=smoothing), segmenter.segment(frame))


@pytest.fixture(params=["openvino", "torch", "tensorrt"])
def any_backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Segmenter:
    """A segmenter with temporal smoothing on each backend, TensorRT as a test double."""
    model: str | Path = MODEL
    if request.param == "torch":
        pytest.importorskip("torch")
        model = find_model("nano").with_suffix(".safetensors")
    elif request.param == "tensorrt":
        pytest.importorskip("onnxruntime")
        from building import build
        from nvidia_doubles import VERSIONS
        from nvidia_machine import Jetson
        from onnx_models import contract_model

        Jetson(monkeypatch, VERSIONS[0])
        colors = contract_model(tmp_path / "colors.onnx", size=(160, 96))
        model = build(colors, target="tensorrt", out=tmp_path, batch=2, verify=False).path
    return Segmenter(model, backend=request.param, smooth=0.8)


def test_noise_is_reduced(any_backend: Segmenter) -> None:
    smoothing, clean = any_backend.new_smoothing(), any_backend.segment(rgb_frame(scene()))
    assert any_backend.streams == 1
    unsmoothed = [any_backend.segment(frame) for frame in frames(noisy(scene(), 12))]
    smoothed = [any_backend.segment(frame, smoothing=smoothing) for frame in frames(noisy(scene(), 12))]
    assert changes(unsmoothed) > 0.1, "the noise changes too few classes for this test"
    assert changes(smoothed[4:]) < changes(unsmoothed) / 2
    assert (smoothed[-1] == clean).mean() > (unsmoothed[-1] == clean).mean()


def test_model_that_outputs_class_maps_is_refused(tmp_path: Path) -> None:
    """A file of an earlier version runs as before, without temporal smoothing."""
    pytest.importorskip("onnx")
    from onnx_models import contract_model, expected_classes, random_images

    old = contract_model(tmp_path / "old.onnx", output="classes")
    old.write_bytes(old.read_bytes().replace(b'"format_version": 2', b'"format_version": 1'))
    (image,) = random_images(1, 48, 64)
    with Segmenter(old, backend="openvino") as segmenter:
        assert np.array_equal(segmenter(image), expected_classes(image[None])[0])
    with pytest.raises(BackendError, match=r"old\.onnx outputs class maps: .*, or build it again with this version$"):
        Segmenter(old, backend="openvino", smooth=0.3)


def test_constant_scene_is_not_reset(segmenter: Segmenter, smoothing: TemporalSmoothing) -> None:
    maps = [segmenter.segment(frame, smoothing=smoothing) for frame in frames([scene()] * 12)]
    assert changes(maps) < 0.001
    assert smoothing.cuts == 0


def test_cut_resets_the_scores(segmenter: Segmenter, smoothing: TemporalSmoothing) -> None:
    other = 255 - scene()
    images = [*noisy(scene(), 5), other, *noisy(other, 2)]
    maps = [segmenter.segment(frame, smoothing=smoothing) for frame in frames(images)]
    assert np.array_equal(maps[5], segmenter.segment(rgb_frame(other)))
    assert smoothing.cuts == 1


def test_size_change_and_gap_reset_the_scores(segmenter: Segmenter, smoothing: TemporalSmoothing) -> None:
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
        frame = replace(rgb_frame(image, number), time_base=Fraction(1, 15))
        smoothing.smooth(frame, image, np.zeros((2, 3, 5), np.float32))
    assert smoothing.cuts == 0


def test_invalid_momentum_is_refused() -> None:
    with pytest.raises(OptionError, match=r"--smooth is 0\.95; give 0 \(off\) to 0\.9"):
        Segmenter(MODEL, smooth=0.95)
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
