"""Steadier class maps: nothing changes without it, noise does, a cut starts anew, and streams do not mix."""

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

pytestmark = pytest.mark.timeout(180)

MODEL = Path(__file__).parents[1] / "data" / "nearest-color.onnx"
COLORS = np.array([STREET[name] for name in CAMVID_CLASSES], dtype=np.uint8)
Picture = npt.NDArray[np.uint8]
NOISE = 90.0
"""Standard deviation, large enough for the nearest color to be another one now and then."""


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter(MODEL, smooth=0.8)


def street(seed: int = 0) -> Picture:
    return next(iter(SyntheticDrive(160, 96, frames=1, seed=seed)))[0]


def noisy(picture: Picture, count: int) -> list[Picture]:
    draw = np.random.default_rng(0)
    return [(picture + draw.normal(0, NOISE, picture.shape)).clip(0, 255).astype(np.uint8) for _ in range(count)]


def frames(pictures: list[Picture], seconds: float = 1 / 15) -> list[Frame]:
    step = Fraction(seconds).limit_denominator(1000)
    return [replace(rgb_frame(picture, i), time_base=step) for i, picture in enumerate(pictures)]


def changes(maps: list[Picture]) -> float:
    """Share of the pixels whose class changes from one map to the next."""
    return float(np.mean([(after != before).mean() for before, after in itertools.pairwise(maps)]))


@pytest.mark.parametrize("model", [MODEL, find_model("nano")], ids=["nearest-color", "nano"])
def test_keeping_nothing_says_what_the_plain_form_says_bit_for_bit(model: Path) -> None:
    plain = open_backend("openvino", model, size=(160, 96))
    smooth = open_smooth_backend("openvino", model, size=(160, 96))
    noise = np.random.default_rng(1).integers(0, 256, (96, 160, 3), np.uint8)
    scores = None
    for picture in (street(), noise, street(3)):
        truth = plain.infer(picture[None])
        assert np.array_equal(smooth.infer(picture[None]), truth)
        classes, scores = smooth.infer_next(picture[None], scores, 0.0)
        assert np.array_equal(classes, truth)
    assert scores is not None
    assert scores.dtype == (np.float32 if model == MODEL else np.float16)


def test_the_scores_are_the_mean_that_is_promised() -> None:
    smooth = open_smooth_backend("openvino", MODEL, size=(64, 64))
    one, two = (np.full((1, 64, 64, 3), level, np.uint8) for level in (20, 200))
    _, first = smooth.infer_next(one, None, 0.0)
    _, second = smooth.infer_next(two, None, 0.0)
    _, mixed = smooth.infer_next(two, first, 0.75)
    expected = 0.75 * first.astype(np.float32) + 0.25 * second.astype(np.float32)
    assert np.allclose(mixed, expected, rtol=0.02, atol=0.02 * float(np.abs(expected).max()))


def test_a_still_scene_stays(segmenter: Segmenter) -> None:
    smoothing = segmenter.smoothing()
    maps = [segmenter.segment(frame, smoothing=smoothing) for frame in frames([street()] * 12)]
    assert changes(maps) < 0.001
    assert smoothing is not None
    assert smoothing.cuts == 0


def test_noise_is_steadied(segmenter: Segmenter) -> None:
    smoothing, clean = segmenter.smoothing(), segmenter.segment(rgb_frame(street()))
    shaky = [segmenter.segment(frame) for frame in frames(noisy(street(), 12))]
    calm = [segmenter.segment(frame, smoothing=smoothing) for frame in frames(noisy(street(), 12))]
    assert changes(shaky) > 0.1, "the noise did not shake anything: nothing was proven"
    assert changes(calm[4:]) < changes(shaky) / 2
    assert (calm[-1] == clean).mean() > (shaky[-1] == clean).mean()


def test_a_cut_begins_anew(segmenter: Segmenter) -> None:
    other = 255 - street()
    smoothing = segmenter.smoothing()
    assert smoothing is not None
    maps = [
        segmenter.segment(frame, smoothing=smoothing)
        for frame in frames([*noisy(street(), 5), other, *noisy(other, 2)])
    ]
    assert np.array_equal(maps[5], segmenter.segment(rgb_frame(other)))
    assert smoothing.cuts == 1


def test_another_size_and_a_gap_begin_anew(segmenter: Segmenter) -> None:
    smoothing = segmenter.smoothing()
    assert smoothing is not None
    for frame in frames(noisy(street(), 3)):
        segmenter.segment(frame, smoothing=smoothing)
    wide = next(iter(SyntheticDrive(160, 64, frames=1)))[0]
    for picture in (wide, street()):
        frame = replace(rgb_frame(picture), pts=4)
        assert np.array_equal(segmenter.segment(frame, smoothing=smoothing), segmenter.segment(frame))
    late = replace(rgb_frame(noisy(street(), 1)[0]), pts=4 + 50)  # of 25 a second
    assert np.array_equal(segmenter.segment(late, smoothing=smoothing), segmenter.segment(late))
    assert smoothing.cuts == 3


def test_two_streams_do_not_mix(segmenter: Segmenter) -> None:
    streams = [frames(noisy(street(seed), 6)) for seed in (0, 3)]
    apart = []
    for stream in streams:
        smoothing = segmenter.smoothing()
        apart.append([segmenter.segment(frame, smoothing=smoothing) for frame in stream])
    each = [segmenter.smoothing() for _ in streams]
    together: list[list[Picture]] = [[], []]
    for pair in zip(*streams, strict=True):
        for number, frame in enumerate(pair):
            together[number].append(segmenter.segment(frame, smoothing=each[number]))
    assert np.array_equal(apart, together)


def test_the_streets_that_are_driven_have_no_cuts() -> None:
    smoothing = TemporalSmoothing(0.5)
    for number, (picture, _) in enumerate(SyntheticDrive(160, 96, frames=30, fps=15)):
        smoothing.style(replace(rgb_frame(picture, number), time_base=Fraction(1, 15)), picture)
    assert smoothing.cuts == 0


def test_what_cannot_be_is_told() -> None:
    with pytest.raises(OptionError, match=r"--smooth is 0\.95; give 0 \(off\) to 0\.9"):
        Segmenter(MODEL, smooth=0.95)
    with pytest.raises(BackendError, match="--backend openvino"):
        open_smooth_backend("tensorrt", MODEL)
    assert Segmenter(MODEL).smoothing() is None


def test_a_video_is_steadied_from_its_first_frame_to_its_last(tmp_path: Path) -> None:
    """Through the command: the masks change less, the fidelity check holds, and the run says what it did."""
    drive = tmp_path / "drive.mp4"
    write_video(SyntheticDrive(160, 96, frames=16, fps=15), str(drive), quiet=True)
    restless = {}
    for smooth in ("0", "0.9"):
        masks = tmp_path / f"{smooth}.mkv"
        arguments = ["video", str(drive), "-o", str(tmp_path / "out.mp4"), "--masks", str(masks), "--quiet"]
        arguments += ["--model", str(MODEL), "--smooth", smooth]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
        with av.open(str(masks)) as container:
            restless[smooth] = changes([frame.to_ndarray() for frame in container.decode(video=0)])
    assert restless["0.9"] < restless["0"]
    result = CliRunner().invoke(app, ["video", str(drive), "-o", str(tmp_path / "out.mp4"), "--smooth", "1"])
    assert result.exit_code == 1
    assert "--smooth is 1;" in result.output
