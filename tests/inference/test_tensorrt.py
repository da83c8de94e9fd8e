"""Engines: built by the real TensorRT for RTX, which needs no GPU; built and run with test doubles of each TensorRT version."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import re
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import nvidia_doubles as doubles  # noqa: E402
from nvidia_machine import Jetson  # noqa: E402
from onnx_models import CLASSES, contract_model, foreign_model, random_images, expected_classes  # noqa: E402

from rtseg.core.errors import BackendError, EngineMismatch, ModelError, OptionError  # noqa: E402
from rtseg.gpu.devices import Gpu  # noqa: E402
from rtseg.inference import choose_backend, describe_model, open_backend  # noqa: E402
from rtseg.inference.engine_metadata import read_sidecar, sha256, sidecar_path  # noqa: E402
from rtseg.models.export.build import best_target, build  # noqa: E402
from rtseg.models.export.precision import engine_layers  # noqa: E402
from rtseg.models.export.tensorrt import EngineOptions  # noqa: E402
from rtseg.nn.preprocessing import Preprocessing  # noqa: E402

PLAIN = Preprocessing(CLASSES, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@pytest.fixture
def rtx() -> None:
    """Skip the test if TensorRT for RTX is not installed; fail it if RTSEG_REQUIRE_SYSTEM=1 requires it."""
    if importlib.util.find_spec("tensorrt_rtx_bindings") is None:
        message = "TensorRT for RTX is missing: pip install tensorrt-rtx-cu13-libs tensorrt-rtx-cu13-bindings"
        if os.environ.get("RTSEG_REQUIRE_SYSTEM") == "1":
            pytest.fail(message + ", but RTSEG_REQUIRE_SYSTEM=1 requires it", pytrace=False)
        pytest.skip(message)


def calibration_images(folder: Path) -> Path:
    """Write a folder of images for calibration."""
    folder.mkdir()
    for number, image in enumerate(random_images(4, 48, 64)):
        cv2.imwrite(str(folder / f"{number}.png"), image[..., ::-1])
    return folder


def needs_rtx(test: Any) -> Any:
    """Mark a test that builds with TensorRT for RTX."""
    return pytest.mark.system()(pytest.mark.usefixtures("rtx")(test))


@pytest.fixture(params=doubles.VERSIONS)
def jetson(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Jetson:
    return Jetson(monkeypatch, request.param)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return contract_model(tmp_path / "colors.onnx")


def build_settings(engine: Path) -> dict[str, Any]:
    """Return the build settings that the test double received."""
    return dict(json.loads(engine.read_bytes())["settings"])


# Builds with the real TensorRT for RTX.


@needs_rtx
def test_rtx_builds_a_real_fp16_engine_without_a_gpu(model: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    built = build(model, target="tensorrt-rtx", out=tmp_path / "engines", log=lines.append)
    assert built.path.name.startswith("unet-colors-")
    assert "-64x48-fp16-portable-rtx" in built.path.name
    assert built.path.read_bytes()[:4] == b"vtrt"  # a plain plan without a wrapper
    assert built.sidecar.verification["precision"]["fp16_share"] == 1.0
    assert built.sidecar.verification["precision"]["counted_on"] == "the parsed, strongly typed network"
    assert any("100.0% of" in line and "FP16" in line for line in lines)
    assert sha256(built.path) == read_sidecar(built.path).file_sha256
    assert describe_model(built.path).classes == CLASSES
    assert {path.suffix for path in (tmp_path / "engines").iterdir()} == {".engine", ".json"}


@needs_rtx
@pytest.mark.parametrize(
    "name",
    [
        "small",
        "fastai1-narrow-batch-norm",
        "fastai2-narrow-spectral-norm",
        "classic-12-transposed-binary",
        "smp-narrow-binary",
    ],
)
def test_rtx_builds_every_family_of_checkpoints(name: str, tmp_path: Path) -> None:
    source: Path | str = name
    if name != "small":
        torch = pytest.importorskip("torch")
        pytest.importorskip("onnxscript")
        from importer_fixtures import load, weights

        source = tmp_path / "unet.pth"
        torch.save(weights(load(name)), source)
    built = build(source, target="tensorrt-rtx", size=(128, 96), out=tmp_path / "engines", verify=False)
    assert built.path.read_bytes()[:4] == b"vtrt"
    assert built.sidecar.verification["precision"]["fp16_share"] == 1.0


@needs_rtx
def test_rtx_refuses_an_fp16_engine_with_fp32_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    single = contract_model(tmp_path / "single.onnx", precision="fp32")
    monkeypatch.setattr(
        "rtseg.models.export.source_model.to_half", lambda model, fp32_nodes: model
    )  # a conversion that does nothing
    with pytest.raises(ModelError, match=r"only 0\.0% of the multiplications are FP16"):
        build(single, target="tensorrt-rtx", out=tmp_path / "engines")
    assert not list((tmp_path / "engines").iterdir())


@needs_rtx
def test_rtx_builds_fp32_and_converts_fp32_to_fp16(tmp_path: Path) -> None:
    single = contract_model(tmp_path / "single.onnx", precision="fp32")
    built = build(single, target="tensorrt-rtx", precision="fp32", out=tmp_path, verify=False)
    assert built.sidecar.verification["precision"]["fp16_share"] == 0.0
    half = build(single, target="tensorrt-rtx", out=tmp_path)
    assert half.sidecar.verification["precision"]["fp16_share"] == 1.0  # converted, normalization kept in FP32
    assert half.sidecar.verification["precision"]["fp32_layers"] > 0
    assert half.sidecar.verification["agreement"]["pixels"] == 1.0


@needs_rtx
@pytest.mark.parametrize("variant", [{"layout": "nhwc"}, {"output_kind": "map"}, {"output_kind": "probabilities", "reduce": 2}])
def test_rtx_builds_foreign_onnx(variant: dict[str, Any], tmp_path: Path) -> None:
    foreign = foreign_model(tmp_path / "theirs.onnx", **variant)
    built = build(foreign, target="tensorrt-rtx", size=(96, 64), out=tmp_path, preprocessing=PLAIN, verify=False)
    assert built.sidecar.verification["precision"]["fp16_share"] == 1.0
    assert built.sidecar.facts.input_size == (96, 64)


@needs_rtx
def test_rtx_builds_a_bias_behind_identity(tmp_path: Path) -> None:
    def through_identity(graph: Any) -> None:
        graph.node.insert(0, onnx.helper.make_node("Identity", ["bias"], ["copied_bias"]))
        graph.node[-1].input[2] = "copied_bias"

    foreign = foreign_model(tmp_path / "theirs.onnx", extra=through_identity)
    built = build(foreign, target="tensorrt-rtx", size=(96, 64), out=tmp_path, preprocessing=PLAIN, verify=False)
    assert built.sidecar.verification["precision"]["fp16_share"] == 1.0


@needs_rtx
def test_rtx_error_lists_supported_capabilities(model: Path, tmp_path: Path) -> None:
    built = build(
        model, target="tensorrt-rtx", out=tmp_path, options=EngineOptions(compute_capability="8.6"), verify=False
    )
    assert "-sm86-rtx" in built.path.name
    assert built.sidecar.facts.capabilities == ("8.6",)
    with pytest.raises(OptionError, match=r"can't build for compute capability '8\.7': it supports 7\.5, 8\.0, 8\.6"):
        build(model, target="tensorrt-rtx", out=tmp_path, options=EngineOptions(compute_capability="8.7"))
    with pytest.raises(OptionError, match="--hardware-compatible is for --target tensorrt;"):
        build(model, target="tensorrt-rtx", out=tmp_path, options=EngineOptions(hardware_compatible=True))


@needs_rtx
def test_rtx_error_names_an_unsupported_operator(tmp_path: Path) -> None:
    def strange(graph: Any) -> None:
        graph.node.append(onnx.helper.make_node("Det", ["b"], ["d"], "strange_node"))

    bad = contract_model(tmp_path / "bad.onnx", extra=strange)
    with pytest.raises(ModelError, match=r"TensorRT can't parse operator Det \(node 'strange_node'\)"):
        build(bad, target="tensorrt-rtx", out=tmp_path / "engines")
    assert not list((tmp_path / "engines").iterdir())


@needs_rtx
def test_rtx_without_a_gpu_raises_an_error(model: Path, tmp_path: Path) -> None:
    from rtseg.gpu.devices import find_gpus

    if find_gpus():
        pytest.skip("there is a GPU")
    built = build(model, target="tensorrt-rtx", out=tmp_path, verify=False)
    assert choose_backend(built.path).backend == "tensorrt-rtx"
    with pytest.raises(BackendError, match="tensorrt-rtx needs an NVIDIA GPU"):
        open_backend("tensorrt-rtx", built.path)


# Builds and runs with test doubles of TensorRT 10.3, 10.16 and 11.4.


def test_every_version_builds_strongly_typed_and_runs(jetson: Jetson, model: Path, tmp_path: Path) -> None:
    built = build(model, target="tensorrt", out=tmp_path / "engines")
    short = ".".join(jetson.trt.__version__.split(".")[:2])
    assert built.path.name.endswith(f"-64x48-fp16-sm87-trt{short}.engine")
    verification = built.sidecar.verification
    assert verification["precision"]["fp16_share"] == 1.0
    assert verification["engine_layers"] == {"fp16": 1, "fp32": 0, "int8": 0}
    assert verification["agreement"]["pixels"] == 1.0
    assert verification["agreement"]["ran"] == "the built file by tensorrt on Orin, compute capability 8.7 in fp16"
    assert set(verification["latency_ms"]) == {"precision", "h2d", "compute", "d2h", "total", "runs", "per_second"}
    assert built.notes == ("a warning of two lines",)
    assert not jetson.cudart.alive, "the verification freed all memory"
    assert build_settings(built.path)["profiling_verbosity"] == "DETAILED"


def test_every_version_builds_int8_from_q_dq_nodes(jetson: Jetson, model: Path, tmp_path: Path) -> None:
    calibration_images(tmp_path / "images")
    built = build(model, target="tensorrt", precision="int8", calibrate=tmp_path / "images", out=tmp_path / "engines")
    assert "-64x48-int8-sm87-trt" in built.path.name
    verification = built.sidecar.verification
    assert (verification["precision"]["int8_share"], verification["precision"]["int8_layers"]) == (1.0, 2)
    assert verification["engine_layers"] == {"fp16": 1, "fp32": 0, "int8": 1}


def test_every_option_reaches_tensorrt(jetson: Jetson, model: Path, tmp_path: Path) -> None:
    options = EngineOptions(
        workspace_mib=512, optimization_level=5, hardware_compatible=True, version_compatible=True, dla_core=1
    )
    built = build(model, target="tensorrt", out=tmp_path, options=options, verify=False)
    settings = build_settings(built.path)
    assert settings["WORKSPACE"] == 512 << 20
    assert settings["builder_optimization_level"] == 5
    assert settings["hardware_compatibility_level"] == "AMPERE_PLUS"
    assert settings["flags"] == [
        "VERSION_COMPATIBLE",
        "GPU_FALLBACK",
    ]
    assert settings["default_device_type"] == "DLA"
    assert settings["DLA_core"] == 1
    assert built.sidecar.facts.capabilities == ("8.0+",)
    assert built.sidecar.command.endswith(
        "--workspace 512 --optimization-level 5 --hardware-compatible --version-compatible --dla 1"
    )


def test_dla_engine_runs_on_its_dla_core(jetson: Jetson, model: Path, tmp_path: Path) -> None:
    built = build(model, target="tensorrt", out=tmp_path, options=EngineOptions(dla_core=1), verify=False)
    assert "-sm87-dla1-trt" in built.path.name
    images = random_images(1, 48, 64)
    np.testing.assert_array_equal(open_backend("tensorrt", built.path).infer(images), expected_classes(images))


def test_missing_dla_core_is_refused(jetson: Jetson, model: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"--dla 2: .* detects 2 DLA cores"):
        build(model, target="tensorrt", out=tmp_path, options=EngineOptions(dla_core=2))


def test_the_timing_cache_is_kept_between_builds(jetson: Jetson, model: Path, tmp_path: Path) -> None:
    first = build(model, target="tensorrt", out=tmp_path, verify=False)
    second = build(model, target="tensorrt", out=tmp_path, verify=False, force=True)
    assert second.path == first.path
    assert build_settings(second.path)["timing_cache"] == len(b"measured")


@pytest.mark.parametrize("content", [b"damaged", b"of another GPU"])
def test_unusable_timing_cache_is_replaced(content: bytes, jetson: Jetson, model: Path, tmp_path: Path) -> None:
    first = build(model, target="tensorrt", out=tmp_path, verify=False)
    (cache,) = tmp_path.glob("timing-*.cache")
    cache.write_bytes(content)
    build(model, target="tensorrt", out=tmp_path, verify=False, force=True)
    assert build_settings(first.path)["timing_cache"] == 0
    assert cache.read_bytes() == b"measured"


def test_unsupported_operators_are_named_with_their_nodes(jetson: Jetson, tmp_path: Path) -> None:
    def strange(graph: Any) -> None:
        graph.node.append(onnx.helper.make_node("Erf", ["b"], ["e1"], "first_erf"))
        graph.node.append(onnx.helper.make_node("Erf", ["e1"], ["e2"], "second_erf"))

    bad = contract_model(tmp_path / "bad.onnx", extra=strange)
    with pytest.raises(
        ModelError,
        match=r"Erf \(node 'first_erf'\): no importer registered; operator Erf \(node 'second_erf'\)",
    ):
        build(bad, target="tensorrt", out=tmp_path / "engines")


def test_ctrl_c_ends_a_build_and_leaves_no_file(
    jetson: Jetson, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: Any, count: int = 1) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("rtseg.core.progress.Progress.advance", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(model, target="tensorrt", out=tmp_path / "engines")
    assert not list((tmp_path / "engines").iterdir())


def test_build_without_a_gpu_raises_an_error(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Jetson(monkeypatch, "10.3.0", gpus=())
    with pytest.raises(BackendError, match="builds on the GPU that will run the engine, and no GPU was detected"):
        build(model, target="tensorrt", out=tmp_path)


@pytest.mark.parametrize(
    ("installed", "capability", "backend"),
    [
        ({"tensorrt", "tensorrt_rtx", "cuda.bindings", "openvino"}, (8, 7), "tensorrt"),
        ({"tensorrt_rtx_bindings", "cuda.bindings", "openvino"}, (8, 9), "tensorrt-rtx"),
        ({"tensorrt_rtx", "cuda.bindings", "openvino"}, (9, 0), "openvino"),
        ({"tensorrt", "openvino"}, (8, 7), "openvino"),
        ({"openvino"}, (8, 7), "openvino"),
    ],
)
def test_auto_chooses_the_best_available_backend(
    installed: set[str], capability: tuple[int, int], backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rtseg.inference.find_gpus", lambda: (Gpu(0, "A GPU", capability),))
    monkeypatch.setattr("rtseg.inference._installed", installed.__contains__)
    choice = choose_backend()
    assert choice.backend == backend
    assert "A GPU" in choice.reason


def test_best_target_on_a_jetson_is_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    Jetson(monkeypatch, "10.3.0")
    assert best_target() == "tensorrt"


# Inference.


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


def test_more_images_than_the_batch_stay_in_order(jetson: Jetson, engine: Path) -> None:
    backend = open_backend("tensorrt", engine)
    assert backend.uses_cuda_graph  # type: ignore[attr-defined]
    for count in (1, 2, 3, 7):
        images = random_images(count, 48, 64, seed=count)
        np.testing.assert_array_equal(backend.infer(images), expected_classes(images))
    backend.close()
    backend.close()
    assert not jetson.cudart.alive
    with pytest.raises(BackendError, match="was closed"):
        backend.infer(images)


def test_runs_call_by_call_when_capture_fails(jetson: Jetson, engine: Path) -> None:
    jetson.cudart.capture_works = False
    backend = open_backend("tensorrt", engine)
    assert not backend.uses_cuda_graph  # type: ignore[attr-defined]
    images = random_images(5, 48, 64)
    np.testing.assert_array_equal(backend.infer(images), expected_classes(images))
    backend.close()
    assert not jetson.cudart.alive


def test_failed_run_does_not_affect_the_next(jetson: Jetson, engine: Path) -> None:
    backend = open_backend("tensorrt", engine)
    launch, count = jetson.cudart.cudaGraphLaunch, iter(range(10))
    jetson.cudart.cudaGraphLaunch = lambda *arguments: (2,) if next(count) == 2 else launch(*arguments)
    with pytest.raises(BackendError, match="CUDA failed in cudaGraphLaunch"):
        backend.infer(random_images(7, 48, 64))
    images = random_images(1, 48, 64, seed=5)
    np.testing.assert_array_equal(backend.infer(images), expected_classes(images))
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
    np.testing.assert_array_equal(backend.infer(images), expected_classes(images))
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
    np.testing.assert_array_equal(open_backend("tensorrt", lean).infer(images), expected_classes(images))
    with pytest.raises(
        EngineMismatch, match=r"TensorRT 10\.3\.0, and this is 10\.16\.1\.11; build it again: rtseg build"
    ):
        open_backend("tensorrt", plain)
    Jetson(monkeypatch, "11.4.0.106")
    with pytest.raises(EngineMismatch, match=r"built for TensorRT 10\.3\.0, and this is 11\.4"):
        open_backend("tensorrt", lean)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"platform": "linux-aarch64-other"}, "platform linux-aarch64-other, and this is"),
        ({"capabilities": ("8.6",), "gpu": "RTX 3090"}, r"compute capability 8\.6 \(RTX 3090\), and this is 8\.7"),
        (
            {"target": "tensorrt-rtx"},
            "backend tensorrt-rtx, and this is tensorrt; build it again: .* --target tensorrt ",
        ),
    ],
)
def test_mismatch_error_names_the_property_and_the_command(
    change: dict[str, Any], message: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Jetson(monkeypatch, "10.3.0")
    engine = build(model, target="tensorrt", out=tmp_path, verify=False).path
    sidecar = read_sidecar(engine)
    command = sidecar.command.replace("--target tensorrt ", f"--target {change.get('target', 'tensorrt')} ")
    changed = dataclasses.replace(
        sidecar,
        facts=dataclasses.replace(sidecar.facts, **change),
        command=command,
    )
    sidecar_path(engine).write_text(changed.to_json())
    with pytest.raises(EngineMismatch, match=message):
        open_backend("tensorrt", engine)


def test_invalid_engines_are_refused_before_tensorrt_loads_them(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Jetson(monkeypatch, "10.3.0")
    engine = build(model, target="tensorrt", out=tmp_path, verify=False).path
    monkeypatch.setattr(machine.trt, "Runtime", None)
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


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("Channel major FP16 format where channel % 8 == 0", (1, 0, 0)),
        ("Half", (1, 0, 0)),
        ("Row major linear FP32 format", (0, 1, 0)),
        ("Float", (0, 1, 0)),
        ("Int64", (0, 0, 0)),
        ("Int8", (0, 0, 1)),
        ("Thirty-two wide channel vectorized row major Int8 format", (0, 0, 1)),
    ],
)
def test_layer_formats_of_every_inspector_version_are_parsed(text: str, counts: tuple[int, int, int]) -> None:
    formats = [{"Format/Datatype": text}]
    layers = {"Layers": [{"Name": "c", "Inputs": formats, "Outputs": formats}, "name only"]}
    assert engine_layers(json.dumps(layers)) == counts
    for name in ("DataType", "Datatype"):  # TensorRT 11
        formats = [{"Format": "Row major linear FP32 format (kLINEAR)", name: text}]
        layers = {"Layers": [{"Name": "c", "Inputs": formats, "Outputs": formats}]}
        assert engine_layers(json.dumps(layers)) == counts


def test_every_version_has_all_names_that_are_used() -> None:
    for version, names in doubles.SURFACE.items():
        removed = {"FP16", "EXPLICIT_BATCH", "PREFER_PRECISION_CONSTRAINTS", "platform_has_fast_fp16"}
        assert set(names["absent"]) <= removed, version
    assert "FP16" in doubles.SURFACE["11.4.0.106"]["absent"]


def test_cuda_bindings_accept_the_arguments() -> None:
    """The real bindings, without a driver: each call must return an error code and not raise TypeError."""
    runtime = pytest.importorskip("cuda.bindings.runtime")
    stream, event = runtime.cudaStream_t(), runtime.cudaEvent_t()
    codes = [
        runtime.cudaStreamCreateWithFlags(runtime.cudaStreamNonBlocking),
        runtime.cudaHostAlloc(16, runtime.cudaHostAllocDefault),
        runtime.cudaMemcpyAsync(16, 32, 0, runtime.cudaMemcpyKind.cudaMemcpyHostToDevice, stream),
        runtime.cudaStreamBeginCapture(stream, runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal),
        runtime.cudaGraphInstantiate(runtime.cudaGraph_t(), 0),
        runtime.cudaEventElapsedTime(event, event),
        runtime.cudaGetErrorString(runtime.cudaError_t.cudaErrorMemoryAllocation),
    ]
    assert all(int(code[0]) >= 0 for code in codes)
    assert codes[-1][1] == b"out of memory"


# On a real GPU.


@pytest.mark.gpu
def test_real_gpu_builds_verifies_and_measures(on_gpu: str, model: Path, tmp_path: Path) -> None:
    built = build(model, target=on_gpu, size=(480, 360), out=tmp_path)
    verification = built.sidecar.verification
    assert verification["agreement"]["ran"].startswith("the built file on ")
    assert verification["agreement"]["pixels"] >= 0.999
    assert verification["engine_layers"]["fp16"] > 0
    assert 0 < verification["latency_ms"]["compute"]["p50"] <= verification["latency_ms"]["compute"]["p99"]


@pytest.mark.gpu
def test_real_gpu_runs_int8(on_gpu: str, model: Path, tmp_path: Path) -> None:
    built = build(
        model,
        target=on_gpu,
        precision="int8",
        calibrate=calibration_images(tmp_path / "images"),
        out=tmp_path / "engines",
    )
    assert built.sidecar.verification["agreement"]["ran"].endswith(" in int8")
    assert built.sidecar.verification["agreement"]["pixels"] > 0.98


@pytest.mark.gpu
def test_real_gpu_results_are_correct_and_memory_does_not_leak(on_gpu: str, model: Path, tmp_path: Path) -> None:
    from cuda.bindings import runtime

    engine = build(model, target=on_gpu, out=tmp_path, batch=2, verify=False).path
    backend = open_backend(on_gpu, engine)
    images = random_images(5, 48, 64)
    np.testing.assert_array_equal(backend.infer(images), expected_classes(images))
    _, free, _ = runtime.cudaMemGetInfo()
    for _ in range(2000):  # 10,000 frames
        backend.infer(images)
    _, later, _ = runtime.cudaMemGetInfo()
    assert free - later < 8 << 20
    np.testing.assert_array_equal(backend.infer(images), expected_classes(images))
    backend.close()
