"""Build, quantize and verify models: ONNX, OpenVINO and TensorRT."""
