"""Compilation of an ONNX graph of the model contract to the file of a target."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx

from rtseg.core.errors import ModelError
from rtseg.core.progress import Progress
from rtseg.inference.engine_metadata import EngineFacts
from rtseg.inference.openvino import import_openvino
from rtseg.models.export.onnx_file import error_summary, fix_input, write_description
from rtseg.models.export.onnx_rewrite import cast_classes_via_float
from rtseg.models.export.precision import PrecisionShare, executed_share, graph_share
from rtseg.models.export.quantize import calibration_images, quantize_onnx, quantize_openvino
from rtseg.models.export.source_model import SourceModel
from rtseg.models.export.tensorrt import EngineOptions, build_plan


def compile_model(
    source_model: SourceModel,
    facts: EngineFacts,
    options: EngineOptions,
    calibrate: Path | None,
    staged: Path,
    timing_cache: Path,
    progress: Progress | None,
) -> tuple[onnx.ModelProto, PrecisionShare, tuple[str, ...]]:
    """Compile a model and write the file `staged`.

    `calibrate` is a data set or video to calibrate `int8` on; None: the model is quantized already, or is not to be `int8`.
    TensorRT reads and writes `timing_cache`, and reports its progress in percent.

    Returns:
        The compiled ONNX graph with a fixed input shape, its precision and warnings of the compiler.

    Raises:
        ModelError: the model can't be exported, quantized or compiled.
        OptionError: the options don't fit the model, or there are no calibration images.
        BackendError: a required package is missing, or the compiler failed.
    """
    exported = source_model.graph(facts.input_size, facts.batch, facts.precision)
    if calibrate is not None:
        images = calibration_images(calibrate, facts.input_size)
        description = replace(source_model.description, precision=facts.precision, input_size=facts.input_size)
        write_description(exported, description)
        if facts.target == "openvino":
            quantize_openvino(exported, images, staged, staged.name)
            return fix_input(exported, facts.input_size, facts.batch), _executed_share(staged, facts), ()
        exported = quantize_onnx(exported, images, staged.name)
        write_description(exported, description)
    graph = fix_input(exported, facts.input_size, facts.batch)
    if facts.target in ("tensorrt", "tensorrt-rtx"):
        model = cast_classes_via_float(graph).SerializeToString()
        plan, share, warnings = build_plan(model, facts.target, options, timing_cache, progress)
        staged.write_bytes(plan)
        return graph, share, warnings
    if facts.target == "onnx":
        onnx.save(exported, staged)
    else:
        _save_openvino(exported, staged, facts.precision)
        if facts.precision == "int8":
            return graph, _executed_share(staged, facts), ()
    return graph, graph_share(onnx.shape_inference.infer_shapes(graph, data_prop=True)), ()


def _save_openvino(graph: onnx.ModelProto, staged: Path, precision: str) -> None:
    openvino = import_openvino()
    source = staged.with_suffix(".given.onnx")
    onnx.save(graph, source)
    try:
        openvino.save_model(openvino.Core().read_model(source), staged, compress_to_fp16=precision != "fp32")
    except RuntimeError as error:
        raise ModelError(f"OpenVINO can't convert the model: {error_summary(error)}") from error
    source.unlink()


def _executed_share(staged: Path, facts: EngineFacts) -> PrecisionShare:
    """Return the precision in which OpenVINO executes an INT8 file on this CPU."""
    core = import_openvino().Core()
    network = core.read_model(staged)
    width, height = facts.input_size
    network.reshape({"image": [facts.batch, height, width, 3]})
    return executed_share(core.compile_model(network, "CPU").get_runtime_model())
