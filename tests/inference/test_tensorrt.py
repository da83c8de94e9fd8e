"""Inference with engines on test doubles of TensorRT 10.3, 10.16 and 11.4; the last test needs a real GPU."""

from __future__ import annotations

import dataclasses
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from building import build
from nvidia_machine import Jetson
from onnx_models import CLASSES, contract_model, expected_classes, expected_scores, random_images

from rtseg.core.errors import BackendError, EngineMismatch, ModelError
from rtseg.inference import open_backend
from rtseg.inference.engine_metadata import read_sidecar, sidecar_path
from rtseg.models.export.tensorrt import EngineOptions


@pytest.fixture
def engine(jetson: Jetson, model: Path, tmp_path: Path) -> Path:
    return build(model, target="tensorrt", out=tmp_path, batch=2, verify=False).path


def test_concurrent_calls_share_a_batch(jetson: Jetson, engine: Path) -> None:
    from rtseg import Segmenter

    images = random_images(24, 48, 64)
    results: list[Any] = [None] * len(images)
    with Segmenter(engine) as segmenter:
        assert segmenter.streams == 4  # two in the current batch, two waiting for the next

        def infer(first: int) -> None:
            for number in range(first, len(images), segmenter.streams):
                results[number] = segmenter(images[number])

        threads = [threading.Thread(target=infer, args=(first,)) for first in range(segmenter.streams)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    np.testing.assert_array_equal(np.stack(results), expected_classes(images))


@pytest.mark.parametrize("capture_works", [True, False], ids=["graph", "call by call"])
def test_more_images_than_the_batch_stay_in_order(jetson: Jetson, engine: Path, capture_works: bool) -> None:
    jetson.cudart.capture_works = capture_works
    backend = open_backend("tensorrt", engine)
    for count in (1, 2, 3, 7):
        images = random_images(count, 48, 64, seed=count)
        np.testing.assert_array_equal(backend.infer(images), expected_scores(images))
    assert ("cudaGraphLaunch" in jetson.cudart.calls) is capture_works
    backend.close()
    backend.close()
    assert not jetson.cudart.alive
    with pytest.raises(BackendError, match="was closed"):
        backend.infer(images)


@pytest.mark.parametrize(
    ("options", "precision", "expected"),
    [
        ({"output": "classes"}, "fp16", expected_classes),
        ({"precision": "fp32"}, "fp32", lambda images: expected_scores(images).astype(np.float32)),
    ],
    ids=["classes", "scores in FP32"],
)
def test_output_has_the_type_of_the_engine(
    jetson: Jetson, tmp_path: Path, options: dict[str, Any], precision: str, expected: Any
) -> None:
    model = contract_model(tmp_path / "other.onnx", **options)
    images = random_images(3, 48, 64)
    backend = open_backend("tensorrt", build(model, target="tensorrt", precision=precision, out=tmp_path).path)
    output = backend.infer(images)
    assert output.dtype == expected(images).dtype
    np.testing.assert_array_equal(output, expected(images))


def test_failed_run_does_not_affect_the_next(jetson: Jetson, engine: Path) -> None:
    backend = open_backend("tensorrt", engine)
    launch, count = jetson.cudart.cudaGraphLaunch, iter(range(10))
    jetson.cudart.cudaGraphLaunch = lambda *arguments: (2,) if next(count) == 2 else launch(*arguments)
    with pytest.raises(BackendError, match="CUDA failed in cudaGraphLaunch"):
        backend.infer(random_images(7, 48, 64))
    images = random_images(1, 48, 64, seed=5)
    np.testing.assert_array_equal(backend.infer(images), expected_scores(images))
    backend.close()


def test_close_frees_everything_even_if_cuda_repeats_an_error(jetson: Jetson, engine: Path) -> None:
    backend = open_backend("tensorrt", engine)
    jetson.cudart.fails = "cudaSetDevice"
    backend.close()
    assert not jetson.cudart.alive


def test_tensorrt_startup_and_binding_errors_are_raised(jetson: Jetson, engine: Path) -> None:
    jetson.cudart.takes_addresses = False
    with pytest.raises(BackendError, match="does not take the memory for 'image'"):
        open_backend("tensorrt", engine)
    jetson.cudart.starts = False
    with pytest.raises(BackendError, match=r"tensorrt can't start .*`rtseg doctor`"):
        open_backend("tensorrt", engine)
    assert not jetson.cudart.alive


def test_allocations_do_not_grow_over_many_runs(jetson: Jetson, engine: Path) -> None:
    backend = open_backend("tensorrt", engine)
    images = random_images(3, 48, 64)
    backend.infer(images)
    alive = len(jetson.cudart.alive)
    for _ in range(200):
        backend.infer(images)
    assert len(jetson.cudart.alive) == alive
    backend.close()


@pytest.mark.parametrize("call", ["cudaMalloc", "cudaHostAlloc", "cudaStreamCreateWithFlags", "cudaMemcpyAsync"])
def test_every_return_code_is_checked(call: str, jetson: Jetson, engine: Path) -> None:
    jetson.cudart.fails = call
    with pytest.raises(
        BackendError, match=rf"CUDA failed in {call}: out of memory \(code 2\); .*smaller --size or --batch"
    ):
        open_backend("tensorrt", engine)
    jetson.cudart.fails = None
    assert not jetson.cudart.alive, "allocations before the failure were freed"


@pytest.mark.parametrize("allocations", [2, 3], ids=["second context does not fit", "second context fits partly"])
def test_full_gpu_memory_reduces_to_one_batch_in_flight(
    allocations: int, jetson: Jetson, engine: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A stream context needs two device allocations. A partial second context is freed."""
    allocate, calls = jetson.cudart.cudaMalloc, iter(range(1_000))
    with monkeypatch.context() as patched:
        full = lambda size: allocate(size) if next(calls) < allocations else (2, 0)  # noqa: E731
        patched.setattr(jetson.cudart, "cudaMalloc", full, raising=False)
        backend = open_backend("tensorrt", engine)
    assert re.fullmatch(
        r"out of memory on Orin, .* for a second batch in flight; running one batch at a time", caplog.messages[0]
    )
    alive = len(jetson.cudart.alive)
    images = random_images(5, 48, 64)
    np.testing.assert_array_equal(backend.infer(images), expected_scores(images))
    backend.close()
    assert not jetson.cudart.alive
    complete = open_backend("tensorrt", engine)
    assert len(jetson.cudart.alive) == 2 * alive, "the partial second context was not freed"
    complete.close()


def test_version_compatible_engines_run_on_later_versions(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Jetson(monkeypatch, "10.3.0")
    lean = build(
        model, target="tensorrt", out=tmp_path, options=EngineOptions(version_compatible=True), verify=False
    ).path
    plain = build(model, target="tensorrt", out=tmp_path / "plain", verify=False).path
    Jetson(monkeypatch, "10.16.1.11")
    images = random_images(1, 48, 64)
    np.testing.assert_array_equal(open_backend("tensorrt", lean).infer(images), expected_scores(images))
    with pytest.raises(
        EngineMismatch, match=r"TensorRT 10\.3\.0, and this is 10\.16\.1\.11; build it again: rtseg build"
    ):
        open_backend("tensorrt", plain)
    Jetson(monkeypatch, "11.4.0.106")
    with pytest.raises(EngineMismatch, match=r"built for TensorRT 10\.3\.0, and this is 11\.4"):
        open_backend("tensorrt", lean)


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("facts", {"platform": "linux-aarch64-other"}, "platform linux-aarch64-other, and this is"),
        ("facts", {"capabilities": ("8.6",), "gpu": "RTX 3090"}, r"capability 8\.6 \(RTX 3090\), and this is 8\.7"),
        ("facts", {"target": "tensorrt-rtx"}, "backend tensorrt-rtx, and this is tensorrt"),
        ("description", {"output": "classes"}, "the engine has the tensors .*'scores': .*'classes'"),
        ("description", {"classes": CLASSES[:3]}, r"the engine has the tensors .*\(2, 4, 48, 64\).*\(2, 3, 48, 64\)"),
    ],
)
def test_mismatch_error_names_the_property_and_the_command(
    part: str, change: dict[str, Any], message: str, jetson: Jetson, engine: Path
) -> None:
    sidecar = read_sidecar(engine)
    command = sidecar.command.replace("--target tensorrt ", f"--target {change.get('target', 'tensorrt')} ")
    changed = {part: dataclasses.replace(getattr(sidecar, part), **change), "command": command}
    sidecar_path(engine).write_text(dataclasses.replace(sidecar, **changed).to_json())
    with pytest.raises(EngineMismatch, match=message + ".*; build it again: rtseg build .*--target tensorrt"):
        open_backend("tensorrt", engine)


def test_invalid_engines_are_refused_before_tensorrt_loads_them(
    jetson: Jetson, engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jetson.trt, "Runtime", None)
    with pytest.raises(EngineMismatch, match=r"input size 64x48, and this is 96x64; build it again: .* --size 96x64"):
        open_backend("tensorrt", engine, size=(96, 64))
    content = engine.read_bytes()
    engine.write_bytes(content[:-10])
    with pytest.raises(EngineMismatch, match="is not the file that was built"):
        open_backend("tensorrt", engine)
    sidecar_path(engine).write_text("{")
    with pytest.raises(ModelError, match="can't be read"):
        open_backend("tensorrt", engine)
    sidecar_path(engine).unlink()
    with pytest.raises(ModelError, match=r"has no .*\.json next to it"):
        open_backend("tensorrt", engine)
    with pytest.raises(ModelError, match="no engine"):
        open_backend("tensorrt", tmp_path / "none.engine")


def test_device_names(jetson: Jetson, engine: Path) -> None:
    assert open_backend("tensorrt", engine, device="cuda:0").device == "Orin, compute capability 8.7"
    with pytest.raises(BackendError, match=r"no GPU 'cuda:3': there are cuda:0 \(Orin\)"):
        open_backend("tensorrt", engine, device="cuda:3")


@pytest.mark.gpu
def test_real_gpu_results_are_correct_and_memory_does_not_leak(on_gpu: str, model: Path, tmp_path: Path) -> None:
    from cuda.bindings import runtime

    engine = build(model, target=on_gpu, out=tmp_path, batch=2, verify=False).path
    backend = open_backend(on_gpu, engine)
    images = random_images(5, 48, 64)
    np.testing.assert_array_equal(backend.infer(images), expected_scores(images))
    _, free, _ = runtime.cudaMemGetInfo()
    for _ in range(2000):  # 10,000 frames
        backend.infer(images)
    _, later, _ = runtime.cudaMemGetInfo()
    assert free - later < 8 << 20
    np.testing.assert_array_equal(backend.infer(images), expected_scores(images))
    backend.close()
