"""From the graph of the model contract to the file that runs, by target."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from rtseg.core.errors import ModelError
from rtseg.inference.engine_metadata import EngineFacts
from rtseg.models.export.onnx_file import describe, fix_input, error_summary
from rtseg.models.export.onnx_rewrite import cast_classes_via_float
from rtseg.models.export.precision import Share, executed_share, graph_share
from rtseg.models.export.quantize import calibration_images, quantized, quantize_openvino
from rtseg.models.export.source_model import SourceModel
from rtseg.models.export.tensorrt import EngineOptions, build_plan


def make(
    origin: SourceModel,
    facts: EngineFacts,
    options: EngineOptions,
    calibrate: Path | None,
    staged: Path,
    timing_cache: Path,
    quiet: bool,
) -> tuple[onnx.ModelProto, Share, tuple[str, ...]]:
    """Writes the file.

    Args:
        origin: the model as it came.
        facts: what is wanted of the file.
        options: what TensorRT is told.
        calibrate: where real pictures are, for int8; None: the model is int8 already, or is not to be.
        staged: the file.
        timing_cache: TensorRT's.
        quiet: no progress.

    Returns:
        The graph it was made from, its input fixed, how much of it is in which precision, and warnings.

    Raises:
        ModelError, OptionError, BackendError: as the steps say.
    """
    free = origin.graph(facts.input_size, facts.batch, facts.precision)
    if calibrate is not None:
        pictures = calibration_images(calibrate, facts.input_size)
        description = replace(origin.description, precision=facts.precision, input_size=facts.input_size)
        describe(free, description)
        if facts.target == "openvino":
            quantize_openvino(free, pictures, staged, staged.name)
            return fix_input(free, facts.input_size, facts.batch), _executed(staged, facts), ()
        free = quantized(free, pictures, staged.name)
        describe(free, description)
    graph = fix_input(free, facts.input_size, facts.batch)
    if facts.target in ("tensorrt", "tensorrt-rtx"):
        plan = build_plan(
            cast_classes_via_float(graph).SerializeToString(), facts.target, options, timing_cache=timing_cache, quiet=quiet
        )
        staged.write_bytes(plan.data)
        return graph, plan.share, plan.warnings
    if facts.target == "onnx":
        onnx.save(free, staged)
    else:
        _save_openvino(free, staged, facts.precision)
        if facts.precision == "int8":
            return graph, _executed(staged, facts), ()
    return graph, graph_share(onnx.shape_inference.infer_shapes(graph, data_prop=True)), ()


def _save_openvino(graph: onnx.ModelProto, staged: Path, precision: str) -> None:
    openvino = _openvino()
    given = staged.with_suffix(".given.onnx")
    onnx.save(graph, given)
    try:
        openvino.save_model(openvino.Core().read_model(given), staged, compress_to_fp16=precision != "fp32")
    except RuntimeError as error:
        raise ModelError(f"OpenVINO can't take the model: {error_summary(error)}") from error
    given.unlink()


def _executed(staged: Path, facts: EngineFacts) -> Share:
    """What OpenVINO makes of an INT8 file on this processor."""
    core = _openvino().Core()
    network = core.read_model(staged)
    width, height = facts.input_size
    network.reshape({"image": [facts.batch, height, width, 3]})
    return executed_share(core.compile_model(network, "CPU").get_runtime_model())


def _openvino() -> Any:
    from rtseg.inference.openvino import disable_telemetry

    disable_telemetry()
    import openvino

    return openvino
