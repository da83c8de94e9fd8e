"""Public Python API."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from command import MODEL

import rtseg
from rtseg import RtsegError, Segmenter, SyntheticDrive, open_source
from rtseg.core.errors import BackendError, ModelError, OptionError
from rtseg.core.palette import CAMVID_CLASSES, STREET
from rtseg.inference.bundled_models import ASSETS, find_model
from rtseg.synthetic.video_file import write_video

COLORS = np.array([STREET[name] for name in CAMVID_CLASSES], dtype=np.uint8)
CHECKPOINT = ASSETS / "camvid-nano.safetensors"


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter(MODEL)


def blocks(width: int, height: int) -> npt.NDArray[np.uint8]:
    """Return a class map of 5 by 4 blocks."""
    return ((np.arange(height)[:, None] * 4 // height) * 5 + np.arange(width) * 5 // width).astype(np.uint8) % 11


@pytest.mark.parametrize(("width", "height"), [(320, 192), (640, 384), (333, 217), (90, 400), (33, 31)])
def test_class_map_of_an_image(segmenter: Segmenter, width: int, height: int) -> None:
    truth = blocks(width, height)
    classes = segmenter(COLORS[truth])
    assert classes.dtype == np.uint8
    assert classes.shape == (height, width)
    assert (classes == truth).mean() > 0.85  # borders between blocks may move by one pixel of the network's input


def test_letterbox_bars_do_not_affect_the_class_map(segmenter: Segmenter) -> None:
    """The class map of a one-class image has one class up to its edges, for every aspect ratio."""
    for width, height in ((900, 100), (100, 900), (320, 192)):
        for index in (0, 5, 10):
            image = np.broadcast_to(COLORS[index], (height, width, 3)).copy()
            assert np.array_equal(segmenter(image), np.full((height, width), index, np.uint8))


def test_segmenter_properties(segmenter: Segmenter) -> None:
    assert segmenter.classes == CAMVID_CLASSES
    assert segmenter.backend == "openvino"
    assert segmenter.input_size == (320, 192)
    assert segmenter.precision in ("bf16", "fp32", "fp16")
    assert segmenter.palette.colors[0] == STREET["sky"]
    assert segmenter.device
    assert segmenter.reason


def test_input_size_can_be_chosen() -> None:
    with Segmenter(MODEL, size=(160, 96)) as small:
        assert small.input_size == (160, 96)
        assert (small(COLORS[blocks(160, 96)]) == blocks(160, 96)).all()


def test_input_is_cut_to_the_aspect_ratio(segmenter: Segmenter) -> None:
    """The network's input is cut to the part that the image fills, in steps of 32, unless a size was given."""
    assert segmenter.input_size_for(640, 384) == (320, 192)
    assert segmenter.input_size_for(1920, 1080) == (320, 192)  # 180 rows, rounded up
    assert segmenter.input_size_for(900, 100) == (320, 64)
    assert segmenter.input_size_for(100, 900) == (32, 192)
    assert segmenter.input_size_for(320, 384, pixel_aspect=2.0) == (320, 192)
    with Segmenter(MODEL, size=(320, 192)) as sized:
        assert sized.input_size_for(900, 100) == (320, 192)
    with Segmenter(MODEL, fit="stretch") as stretched:
        assert stretched.input_size_for(900, 100) == (320, 192)


def test_concurrent_calls_give_correct_results() -> None:
    truths = [np.roll(blocks(160, 96), 32 * number, axis=1) for number in range(8)]
    with Segmenter(MODEL, size=(160, 96), streams=2) as shared, ThreadPoolExecutor(4) as pool:
        assert shared.streams == 2
        results = list(pool.map(shared, [COLORS[truth] for truth in truths] * 5, timeout=150))
    for classes, truth in zip(results, truths * 5, strict=True):
        assert (classes == truth).all()


def test_error_names_the_command_that_builds_the_file() -> None:
    with pytest.raises(BackendError) as error:
        Segmenter(CHECKPOINT, backend="openvino", size=(96, 64))
    assert f"run `rtseg build {CHECKPOINT} --target openvino --size 96x64` once" in str(error.value)
    assert "\n" not in str(error.value)


def test_callback_builds_only_a_file_that_does_not_run_directly() -> None:
    calls: list[tuple[Path, str, tuple[int, int] | None]] = []

    def build(model: Path, backend: str, size: tuple[int, int] | None) -> Path:
        calls.append((model, backend, size))
        return find_model("nano")

    for model in ("nano", CHECKPOINT):
        with Segmenter(model, backend="openvino", size=(96, 64), build_missing=build) as segmenter:
            assert (segmenter.description.name, segmenter.input_size) == ("camvid-nano", (96, 64))
    assert calls == [(CHECKPOINT, "openvino", (96, 64))]


def test_missing_backend_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error comes first even if the model would have to be built."""
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setattr("rtseg.models.export.requirements.importlib.util.find_spec", lambda name: None)
    with pytest.raises(BackendError, match=r'pip install "rtseg\[tensorrt\]"'):
        Segmenter("small", backend="tensorrt")


def test_closed_model_raises_an_error() -> None:
    closed = Segmenter(MODEL, size=(160, 96))
    closed.close()
    with pytest.raises(BackendError, match="closed"):
        closed(COLORS[blocks(160, 96)])


def test_stream_yields_frames_with_class_maps(segmenter: Segmenter, tmp_path: Path) -> None:
    write_video(SyntheticDrive(128, 96, frames=5), str(tmp_path / "drive.mp4"))
    items = list(segmenter.stream(open_source(str(tmp_path / "drive.mp4"))))
    assert [frame.index for frame, _ in items] == [0, 1, 2, 3, 4]
    assert all(classes.shape == (96, 128) for _, classes in items)


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8), [[1, 2, 3]], None],
    ids=["gray", "float", "empty", "list", "none"],
)
def test_invalid_image_is_refused(segmenter: Segmenter, image: object) -> None:
    with pytest.raises(OptionError, match=r"uint8 array \[H, W, 3\]"):
        segmenter(image)  # type: ignore[arg-type]


def test_invalid_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "junk.onnx").write_bytes(b"junk" * 100)
    (tmp_path / "cut.onnx").write_bytes(MODEL.read_bytes()[:200])
    for file in ("junk.onnx", "cut.onnx"):
        with pytest.raises(ModelError, match=file):
            Segmenter(tmp_path / file)
    with pytest.raises(ModelError, match="bundled are"):
        Segmenter("no-such-model")
    with pytest.raises(BackendError, match="no device 'TPU'"):
        Segmenter(MODEL, device="TPU")
    with pytest.raises(OptionError, match="openvino"):
        Segmenter(MODEL, backend="abacus")
    with pytest.raises(OptionError, match="8x8"):
        Segmenter(MODEL, size=(8, 8))


def test_public_names() -> None:
    for name in rtseg.__all__:
        assert getattr(rtseg, name) is not None
    assert issubclass(ModelError, RtsegError)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = rtseg.no_such_name  # type: ignore[attr-defined]


def test_inference_imports_neither_torch_nor_openvino_telemetry() -> None:
    script = (
        "import sys, numpy as np\nfrom rtseg import Segmenter\nimport rtseg.video.process, rtseg.cli.demo_run, rtseg.video.image\n"
        f"Segmenter({str(MODEL)!r})(np.zeros((20, 30, 3), np.uint8))\n"
        "assert 'torch' not in sys.modules and 'onnx' not in sys.modules, 'torch or onnx was imported'\n"
        "assert sys.modules.get('openvino_telemetry') is None and 'openvino' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=150)
