"""NVIDIA GPUs: devices, CUDA calls, frames in GPU memory, kernels and telemetry."""
