"""Input and options that `rtseg build` refuses with a message of one line and without files."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from building import PLAIN, build, quick
from onnx import TensorProto, helper, numpy_helper
from onnx_models import contract_model, foreign_model

from rtseg.core.errors import BackendError, ModelError, OptionError, RtsegError
from rtseg.models.export.onnx_file import read_onnx
from rtseg.nn.preprocessing import Preprocessing


def _weights_outside(path: Path, location: str = "../secret.bin") -> None:
    contract_model(path)
    loaded = onnx.load(path)
    tensor = loaded.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    path.write_bytes(loaded.SerializeToString())


def _nan(path: Path) -> None:
    def poison(graph: Any) -> None:
        graph.initializer[0].CopyFrom(numpy_helper.from_array(np.full((8, 3, 3, 3), np.nan, np.float16), "first"))

    contract_model(path, extra=poison)


def _unknown_operator(path: Path) -> None:
    contract_model(path, extra=lambda graph: graph.node.append(helper.make_node("Foo", ["b"], ["d"], "my_foo")))


def _own_operator(path: Path) -> None:
    foreign_model(
        path, size=(64, 48), extra=lambda g: g.node.append(helper.make_node("Mine", ["b"], ["d"], "m", domain="my.own"))
    )


def _description(path: Path) -> None:
    contract_model(path)
    path.write_bytes(path.read_bytes().replace(b'"classes"', b'"klasses"'))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: path.write_bytes(b"not an onnx file at all"), "damaged or not an ONNX file|contains no network"),
        (lambda path: path.write_bytes(b""), "contains no network"),
        (lambda path: (contract_model(path), path.write_bytes(path.read_bytes()[:400])), "damaged or not|not a valid"),
        (_nan, "the weights 'first' contain NaN"),
        (_weights_outside, "point outside its folder, to '../secret.bin'; refused"),
        (lambda path: _weights_outside(path, "weights.bin"), "its weights file 'weights.bin' is missing"),
        (_unknown_operator, "operator Foo \\(node 'my_foo'\\)"),
        (_own_operator, "operator my.own.Mine \\(node 'm'\\)"),
        (_description, "description can't be read"),
        (lambda path: foreign_model(path), "has a free input size; give one with --size WIDTHxHEIGHT"),
        (lambda path: path.mkdir() or (path / "x").touch(), "."),
    ],
)
def test_refuses_bad_onnx_with_one_line(write: Any, message: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    bad = tmp_path / "in" / "bad.onnx"
    write(bad)
    with pytest.raises((ModelError, OptionError, BackendError), match=message) as caught:
        build(bad, target="onnx", out=tmp_path / "built", preprocessing=PLAIN)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "built").exists() or not list((tmp_path / "built").iterdir())


@pytest.mark.parametrize(
    ("preprocessing", "size", "message"),
    [
        (
            dataclasses.replace(PLAIN, mean=None),
            (64, 48),
            "does not contain the normalization of its input: give --mean and --std",
        ),
        (dataclasses.replace(PLAIN, std=(1.0, 0.0, 1.0)), (64, 48), "each value must be above 0"),
        (dataclasses.replace(PLAIN, classes=("a", "b")), (64, 48), "has 4 classes, but --classes names 2: a, b"),
        (dataclasses.replace(PLAIN, output="other"), (64, 48), "has no output 'other': there are scores"),
    ],
)
def test_refuses_missing_or_wrong_preprocessing(
    preprocessing: Preprocessing, size: Any, message: str, tmp_path: Path
) -> None:
    path = foreign_model(tmp_path / "theirs.onnx")
    with pytest.raises(OptionError, match=message):
        quick(path, tmp_path / "built", size=size, preprocessing=preprocessing)


def test_refuses_size_that_contradicts_fixed_size(tmp_path: Path) -> None:
    path = foreign_model(tmp_path / "theirs.onnx", size=(64, 48))
    assert quick(path, tmp_path / "built", preprocessing=PLAIN).sidecar.facts.input_size == (64, 48)
    with pytest.raises(OptionError, match="takes only 64x48, not 96x64"):
        quick(path, tmp_path / "built", size=(96, 64), preprocessing=PLAIN)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "coreml"}, "no target 'coreml': there are tensorrt, tensorrt-rtx, openvino, onnx"),
        ({"precision": "int4"}, "fp16, fp32 or int8"),
        ({"precision": "fp32"}, "is fp16 already"),
        ({"batch": 0}, "at least 1"),
    ],
)
def test_refuses_invalid_options(options: dict[str, Any], message: str, model: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=message):
        quick(model, tmp_path / "built", **options)


def test_full_disk_leaves_no_files(model: Path, tmp_path: Path) -> None:
    """The operating system limits files to 500 bytes in this process."""
    script = (
        "import resource, signal, sys; from pathlib import Path\n"
        "import onnx, onnxruntime; from rtseg.models.export.build import BuildOptions, build\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (500, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))\n"
        "try: build(sys.argv[1], BuildOptions('onnx'), out=Path(sys.argv[2]), verification=None)\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    command = [sys.executable, "-c", script, str(model), str(tmp_path / "built")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
    assert done.stdout.startswith("SinkError the built file can't be written to"), done.stdout + done.stderr
    assert "file too large" in done.stdout
    assert not list((tmp_path / "built").iterdir())


def test_refuses_output_folder_that_cannot_be_created(model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RtsegError, match="can't be written to"):
        quick(model, tmp_path / "file")


def test_refuses_built_file_as_source(model: Path, tmp_path: Path) -> None:
    built = quick(model, tmp_path / "built", target="openvino")
    with pytest.raises(ModelError, match=r"\.xml is a built file; build from the model that it was made from"):
        quick(built.path, tmp_path / "again")


def test_refuses_link_out_of_folder(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.bin").write_bytes(b"\0" * 4096)
    (tmp_path / "in" / "weights.bin").symlink_to(tmp_path / "secret.bin")
    _weights_outside(tmp_path / "in" / "bad.onnx", "weights.bin")
    with pytest.raises(ModelError, match=r"'weights\.bin' is a link to .*secret\.bin, outside its folder"):
        read_onnx(tmp_path / "in" / "bad.onnx")
