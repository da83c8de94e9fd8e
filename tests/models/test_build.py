"""`rtseg build` without TensorRT: source models, conditions of a rebuild, and refused input."""

from __future__ import annotations

import dataclasses
import json
import re
import stat
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from building import PLAIN, build, quick
from class_maps import onnx_class_maps
from onnx import TensorProto, numpy_helper
from onnx_models import CLASSES, contract_model, expected_classes, foreign_model, random_images
from typer.testing import CliRunner

from rtseg.core.errors import BackendError, ModelError, RtsegError
from rtseg.core.palette import CAMVID_CLASSES
from rtseg.inference.argmax import class_maps
from rtseg.inference.engine_metadata import default_folder, read_sidecar, sidecar_path
from rtseg.inference.openvino import OpenVinoBackend
from rtseg.models.export.agreement import compare, samples
from rtseg.models.export.onnx_file import read_onnx
from rtseg.models.export.requirements import require
from rtseg.models.export.source_model import onnx_class_map_function
from rtseg.nn.preprocessing import Preprocessing

# Built files.


def test_onnx_and_openvino_files_agree_with_model(model: Path, tmp_path: Path) -> None:
    for target, suffix in (("onnx", ".onnx"), ("openvino", ".xml")):
        built = build(model, target=target, out=tmp_path / "built")
        assert built.path.suffix == suffix
        assert built.sidecar.verification["agreement"]["pixels"] == 1.0
        assert built.sidecar.verification["precision"]["fp16_share"] == 1.0
        backend = OpenVinoBackend(built.path)
        images = random_images(2, 48, 64)
        np.testing.assert_array_equal(class_maps(backend, images), expected_classes(images))
        assert backend.description.classes == CLASSES
        backend.close()
    assert built.sidecar.verification["latency_ms"]["total"]["p50"] > 0


def test_builds_with_given_size(model: Path, tmp_path: Path) -> None:
    built = quick(model, tmp_path / "built", target="openvino", size=(96, 64))
    backend = OpenVinoBackend(built.path)
    assert backend.input_size == (96, 64)
    images = random_images(1, 64, 96)
    np.testing.assert_array_equal(class_maps(backend, images), expected_classes(images))


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("output_kind", ["logits", "probabilities", "map"])
@pytest.mark.parametrize(("precision", "opset"), [("fp32", 17), ("fp32", 12), ("fp16", 17)])
def test_foreign_onnx_keeps_its_classes(
    layout: str, output_kind: str, precision: str, opset: int, tmp_path: Path
) -> None:
    path = foreign_model(
        tmp_path / "theirs.onnx", layout=layout, output_kind=output_kind, precision=precision, opset=opset
    )
    built = quick(path, tmp_path / "built", size=(64, 48), preprocessing=PLAIN)
    images = random_images(1, 48, 64)
    np.testing.assert_array_equal(onnx_class_maps(built.path, images), expected_classes(images))
    graph = onnx.load(built.path).graph
    assert graph.node[0].op_type == "Cast"
    assert [output.name for output in graph.output] == ["scores"], "a class map is cut before its argmax"
    if precision == "fp32":
        assert "BatchNormalization" not in {node.op_type for node in graph.node}, "folded into the convolution"
    assert {t.data_type for t in graph.initializer if len(t.dims) == 4 and t.dims[0] > 1} == {TensorProto.FLOAT16}


def test_normalizes_with_given_mean_and_std(tmp_path: Path) -> None:
    path = foreign_model(tmp_path / "theirs.onnx")
    shifted = dataclasses.replace(PLAIN, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    uses_255_scale = dataclasses.replace(PLAIN, mean=(127.5, 127.5, 127.5), std=(63.75, 63.75, 63.75))
    first = quick(path, tmp_path / "a", size=(64, 48), preprocessing=shifted)
    second = quick(path, tmp_path / "b", size=(64, 48), preprocessing=uses_255_scale)
    image = np.full((48, 64, 3), 140, np.uint8)  # 0.2 after normalization, below the threshold of 79.5 / 255
    class_maps = [onnx_class_map_function(read_onnx(built.path), "")(image) for built in (first, second)]
    np.testing.assert_array_equal(class_maps[0], class_maps[1])
    assert (class_maps[0] == 0).all()
    assert (expected_classes(image[None]) != 0).all(), "the class is different without normalization"


# Conditions of a rebuild.


def test_second_build_reuses_file(model: Path, tmp_path: Path) -> None:
    first = quick(model, tmp_path / "built")
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "built").iterdir()}
    second = quick(model, tmp_path / "built")
    assert first.reasons == ("it was not built yet",)
    assert second.reasons == ()
    assert second.path == first.path
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "built").iterdir()} == before


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"size": (96, 64)}, "size was [64, 48] and is now [96, 64]"),
        ({"batch": 2}, "batch was 1 and is now 2"),
        ({"preprocessing": Preprocessing(blur=True)}, 'options was {} and is now {"blur": true}'),
        ({"force": True}, "requested with --force"),
    ],
)
def test_rebuilds_after_change_of_options(changes: dict[str, Any], reason: str, model: Path, tmp_path: Path) -> None:
    quick(model, tmp_path)
    assert quick(model, tmp_path, **changes).reasons == (reason,)
    again = {key: value for key, value in changes.items() if key != "force"}
    assert quick(model, tmp_path, **again).reasons == ()


def test_rebuilds_for_other_precision(tmp_path: Path) -> None:
    single = contract_model(tmp_path / "single.onnx", precision="fp32")
    quick(single, tmp_path)
    assert quick(single, tmp_path, precision="fp32").reasons == ("precision was fp16 and is now fp32",)


def test_rebuilds_after_change_of_source(model: Path, tmp_path: Path) -> None:
    quick(model, tmp_path / "built")
    contract_model(model, name="other")
    (reason,) = quick(model, tmp_path / "built").reasons
    assert reason.startswith("source was ")


def test_builds_copy_with_other_name_and_options(tmp_path: Path) -> None:
    path = foreign_model(tmp_path / "theirs.onnx", size=(64, 48))
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(path.read_bytes())
    quick(path, tmp_path / "built", preprocessing=PLAIN)
    names = dataclasses.replace(PLAIN, classes=("a", "b", "c", "d"))
    built = quick(copy, tmp_path / "built", preprocessing=names)
    assert built.reasons == ("it was not built yet",)
    assert built.path.name.startswith("copy")


@pytest.mark.parametrize(
    ("part", "change", "reason"),
    [
        ("facts", {"tool": "0.9"}, "onnx was 0.9 and is now .*"),
        ("facts", {"rtseg": "0.0.1"}, r"rtseg was 0\.0\.1 and is now .*"),
        ("facts", {"gpu": "Orin"}, "gpu was Orin and is now none"),
        ("facts", {"platform": "linux-other"}, "platform was linux-other and is now none"),
        ("description", {"format_version": 1}, "model format was 1 and is now 2"),
    ],
)
def test_rebuilds_for_other_version_or_machine(
    part: str, change: dict[str, Any], reason: str, model: Path, tmp_path: Path
) -> None:
    built = quick(model, tmp_path)
    changed = dataclasses.replace(getattr(built.sidecar, part), **change)
    sidecar_path(built.path).write_text(dataclasses.replace(built.sidecar, **{part: changed}).to_json())
    (actual,) = quick(model, tmp_path).reasons
    assert re.fullmatch(reason, actual)
    assert quick(model, tmp_path).reasons == ()


def test_rebuilds_damaged_file_or_sidecar(model: Path, tmp_path: Path) -> None:
    built = quick(model, tmp_path)
    built.path.write_bytes(built.path.read_bytes()[:100])
    assert quick(model, tmp_path).reasons == (f"{built.path.name} is missing or was changed",)
    sidecar_path(built.path).write_text('{"sidecar_version": 1}')
    assert quick(model, tmp_path).reasons == ("it was not built yet",)
    assert read_sidecar(built.path).to_json() == quick(model, tmp_path).sidecar.to_json()


# Verification.


def test_removes_build_that_disagrees_with_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    single = contract_model(tmp_path / "single.onnx", precision="fp32")

    def broken(model: Any, fp32_nodes: Any) -> Any:
        from rtseg.models.export.onnx_rewrite import to_half

        model = to_half(model, fp32_nodes)
        bias = next(t for t in model.graph.initializer if t.name == "bias")
        bias.CopyFrom(numpy_helper.from_array(np.array([0.31, 0, 0, 9], np.float16), "bias"))
        return model

    monkeypatch.setattr("rtseg.models.export.source_model.to_half", broken)
    with pytest.raises(ModelError, match=r"agrees with the original on \d+\.\d+% of the pixels .*, and mostly lost: "):
        build(single, target="onnx", out=tmp_path / "built")
    assert not list((tmp_path / "built").iterdir())


def test_reports_lost_class_despite_high_mean() -> None:
    labels = np.zeros((100, 100), np.uint8)
    labels[:, 40] = 2
    labels[0, 0] = 1

    def lose_pole(image: Any) -> Any:
        return np.where(labels == 2, 0, labels).astype(np.uint8)

    frames = [(np.zeros((100, 100, 3), np.uint8), labels)] * 3
    agreement = compare(lambda image: labels, lose_pole, frames, ("road", "car", "pole"))
    assert agreement.frames == 3
    assert agreement.pixels == pytest.approx(0.99)
    assert agreement.lost() == ("pole",)
    assert agreement.iou_change["pole"] == pytest.approx(-1.0)
    assert agreement.overlap["car"] == 1.0
    same = compare(lambda image: labels, lambda image: labels, frames, ("road", "car", "pole"))
    assert same.pixels == 1.0
    assert same.lost() == ()


def test_loads_frames_from_scenes_data_set_and_video(tmp_path: Path, camvid: Path, clips: Path) -> None:
    synthetic = list(samples((64, 48), CAMVID_CLASSES, count=3))
    assert all(image.shape == (48, 64, 3) and labels is not None for image, labels in synthetic)
    data = list(samples((96, 64), CAMVID_CLASSES, camvid, count=2))
    assert all(image.shape == (64, 96, 3) and labels is not None and labels.shape == (64, 96) for image, labels in data)
    other = list(samples((96, 64), CLASSES, camvid, count=1))
    assert other[0][1] is None, "labels of other classes can't be compared with this model"
    clip = next(iter(sorted(clips.glob("*.mp4"))))
    assert len(list(samples((64, 48), CLASSES, clip, count=3))) == 3


def test_refuses_folder_without_images_and_names_no_foreign_option(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing to see here")
    with pytest.raises(
        RtsegError, match=r"contains neither images \(\.apng, .*, .webp\) nor a known data set"
    ) as refused:
        list(samples((64, 48), CLASSES, tmp_path))
    assert "--layout" not in str(refused.value)


# Folder, command, packages.


def test_default_folder_is_private_to_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_folder() == Path(__file__).parents[2] / "engines"
    monkeypatch.setattr(
        "rtseg.inference.engine_metadata.__file__", str(tmp_path / "site-packages" / "rtseg" / "engine_file.py")
    )
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = default_folder()
    assert folder == tmp_path / "cache" / "rtseg" / "engines"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.chmod(0o777)
    with pytest.raises(ModelError, match="others may write into"):
        default_folder()


def test_reports_weights_if_multiplications_are_unknown(model: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    first = quick(model, tmp_path / "built", log=lines.append)
    assert first.sidecar.verification["precision"]["multiplications"] == 48 * 64 * (8 * 3 * 9 + 4 * 8)
    # Its padding depends on the size, so the shapes are only known when it runs.
    second = quick(Path("small"), tmp_path / "built", log=lines.append)
    assert second.sidecar.verification["precision"]["weights"] > 2_000_000
    assert any("million weights are FP16" in line for line in lines)


def test_build_command(model: Path, tmp_path: Path) -> None:
    from rtseg.cli.app import app

    run = CliRunner().invoke(app, ["build", str(model), "-t", "onnx", "-o", str(tmp_path / "built"), "--json", "-"])
    assert run.exit_code == 0, run.output
    report = json.loads(run.stdout)
    assert report["file"].endswith("-64x48-fp16.onnx")
    assert report["verification"]["agreement"]["pixels"] == 1.0
    assert "100.0000% of the pixels" in run.stderr
    again = CliRunner().invoke(app, ["build", str(model), "-t", "onnx", "-o", str(tmp_path / "built")])
    assert "nothing has changed" in again.stderr
    bad = CliRunner().invoke(app, ["build", str(model), "-t", "onnx", "--mean", "1,2"])
    assert bad.exit_code == 1
    assert bad.stderr == "rtseg: --mean is '1,2'; write three numbers for red, green and blue, such as 0.5,0.5,0.5\n"


def test_names_missing_package() -> None:
    with pytest.raises(BackendError, match="building needs no_such_module: pip install no_such_module"):
        require("json", "no_such_module")
