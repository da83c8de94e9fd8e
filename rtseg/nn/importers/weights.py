"""Layers built from the tensors of a checkpoint. The size of each layer is the size of its weights in the file.

BatchNorm is folded into the convolution before it, and weight norm and spectral norm into the weights they parametrize, so
the network consists of plain convolutions and exports to ONNX as such.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from rtseg.core.errors import ModelError

BATCH_NORM_EPS = 1e-5
"""`eps` of BatchNorm in torchvision, fastai, segmentation_models.pytorch and torch. Checkpoints do not record it."""


class Weights:
    """Tensors of a checkpoint below a prefix. Records which tensors were taken, so that unused ones can be reported."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str = "", taken: set[str] | None = None) -> None:
        self._tensors = tensors
        self._prefix = prefix
        self._taken: set[str] = set() if taken is None else taken

    def below(self, name: str) -> Weights:
        """Return the tensors whose names start with `name` and a dot."""
        return Weights(self._tensors, f"{self._prefix}{name}.", self._taken)

    def __contains__(self, name: str) -> bool:
        return self._prefix + name in self._tensors

    def has(self, name: str) -> bool:
        """Return True if there is a tensor below `name`."""
        return bool(self.below(name).names())

    def names(self) -> list[str]:
        """Return the names below this prefix."""
        return [key[len(self._prefix) :] for key in self._tensors if key.startswith(self._prefix)]

    def children(self) -> list[str]:
        """Return the first part of each name below this prefix, in natural order: 2 before 10."""
        parts = {name.split(".", 1)[0] for name in self.names()}
        return sorted(parts, key=lambda part: (not part.isdigit(), int(part) if part.isdigit() else 0, part))

    def take(self, name: str) -> Tensor:
        """Return a tensor and mark it as taken.

        Raises:
            ModelError: there is no tensor of that name.
        """
        key = self._prefix + name
        if key not in self._tensors:
            raise ModelError(f"'{key}' is missing: the file is incomplete or of another architecture")
        self._taken.add(key)
        return self._tensors[key]

    def peek(self, name: str) -> Tensor:
        """Return a tensor without marking it as taken. Raises KeyError if there is none."""
        return self._tensors[self._prefix + name]

    def is_taken(self, name: str) -> bool:
        """Return True if the tensor was taken."""
        return self._prefix + name in self._taken

    def ignore(self, name: str) -> None:
        """Mark all tensors below `name` as taken."""
        self._taken.update(f"{self._prefix}{name}.{rest}" for rest in self.below(name).names())

    def unused(self) -> list[str]:
        """Return the names in the whole checkpoint that were never taken. Inference does not need BatchNorm's counters."""
        return [key for key in self._tensors if key not in self._taken and not key.endswith("num_batches_tracked")]

    def kernel(self, name: str) -> Tensor:
        """Return the weights of convolution `name`, `[out, in, kh, kw]`, with weight norm or spectral norm applied."""
        w = self.below(name)
        if "weight_g" in w:  # torch.nn.utils.weight_norm
            kernel = _weight_norm(w.take("weight_g"), w.take("weight_v"))
        elif "parametrizations.weight.original0" in w:  # torch.nn.utils.parametrizations.weight_norm
            kernel = _weight_norm(
                w.take("parametrizations.weight.original0"), w.take("parametrizations.weight.original1")
            )
        elif "weight_orig" in w:  # torch.nn.utils.spectral_norm
            kernel = _spectral_norm(w.take("weight_orig"), w.take("weight_u"), w.take("weight_v"))
        elif "parametrizations.weight.original" in w:  # torch.nn.utils.parametrizations.spectral_norm
            p = w.below("parametrizations.weight")
            kernel = _spectral_norm(p.take("original"), p.take("0._u"), p.take("0._v"))
        else:
            kernel = w.take("weight")
        if kernel.ndim == 3:  # a 1D convolution of kernel 1 over flattened pixels is the 1x1 convolution of the map
            kernel = kernel.unsqueeze(3)
        if kernel.ndim != 4:
            raise ModelError(
                f"'{self._prefix}{name}' is not a 2D convolution: its weights have the shape {list(kernel.shape)}"
            )
        return kernel

    def conv(
        self, name: str, *, norm: str = "", stride: int = 1, channels_in: int = 0, biased: bool = False
    ) -> nn.Conv2d:
        """Build convolution `name` with "same" padding.

        Args:
            name: prefix of its weights.
            norm: prefix of the BatchNorm after it, which is folded in; "" for none.
            stride: 1 or 2.
            channels_in: channels of its input, which determine the number of groups; 0: one group.
            biased: require a bias. False: use a bias only if the file contains one.
        """
        kernel = self.kernel(name)
        bias = self.below(name).take("bias") if biased or f"{name}.bias" in self else None
        if norm:
            scale, shift = self.batch_norm(norm)
            bias = shift if bias is None else shift + scale * bias.double()
            kernel = kernel.double() * scale.reshape(-1, 1, 1, 1)
        channels_out, channels_a_group, height, width = kernel.shape
        groups = max(1, channels_in // channels_a_group)
        conv = nn.Conv2d(
            channels_a_group * groups,
            channels_out,
            (height, width),
            stride=stride,
            padding=(height // 2, width // 2),
            groups=groups,
            bias=bias is not None,
            device="meta",  # the next lines replace the weights
        )
        conv.weight = _parameter(kernel)
        conv.bias = None if bias is None else _parameter(bias)
        return conv

    def transposed_conv(self, name: str) -> nn.ConvTranspose2d:
        """Build the 2x2 transposed convolution `name` of stride 2, which doubles height and width."""
        w = self.below(name)
        kernel = w.take("weight")
        if kernel.ndim != 4 or kernel.shape[2:] != (2, 2):
            raise ModelError(
                f"'{self._prefix}{name}' should be a 2x2 transposed convolution, not of shape {list(kernel.shape)}"
            )
        conv = nn.ConvTranspose2d(kernel.shape[0], kernel.shape[1], 2, stride=2, bias="bias" in w, device="meta")
        conv.weight = _parameter(kernel)
        conv.bias = _parameter(w.take("bias")) if "bias" in w else None
        return conv

    def batch_norm(self, name: str) -> tuple[Tensor, Tensor]:
        """Return scale and shift of BatchNorm `name` at inference, x -> scale * x + shift: float64 `[channels]` each."""
        w = self.below(name)
        scale = torch.rsqrt(w.take("running_var").double() + BATCH_NORM_EPS)
        shift = -w.take("running_mean").double()
        if not self._has_affine_norms():  # `affine=False`: true of all norms of a network or of none
            return scale, shift * scale
        scale = w.take("weight").double() * scale
        return scale, shift * scale + w.take("bias").double()

    def _has_affine_norms(self) -> bool:
        means = (key.removesuffix("running_mean") for key in self._tensors if key.endswith(".running_mean"))
        return any(f"{norm}{part}" in self._tensors for norm in means for part in ("weight", "bias"))

    def norm(self, name: str) -> nn.Module:
        """Build normalization `name` as a separate layer: BatchNorm, or InstanceNorm if no statistics are stored."""
        if f"{name}.running_mean" in self:
            return Scale(*self.batch_norm(name))
        w = self.below(name)
        if "num_batches_tracked" in w:  # BatchNorm whose statistics are missing
            w.take("running_mean")  # raises ModelError
        weight = w.take("weight")
        norm = nn.InstanceNorm2d(len(weight), affine=True, device="meta")
        norm.weight = _parameter(weight)
        norm.bias = _parameter(w.take("bias"))
        return norm


class Scale(nn.Module):
    """Affine map per channel, x -> scale * x + shift: a BatchNorm that does not follow a convolution."""

    scale: Tensor
    shift: Tensor

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale.float().reshape(1, -1, 1, 1))
        self.register_buffer("shift", shift.float().reshape(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map `[N, C, h, w]` to the same shape."""
        return x * self.scale + self.shift


def _parameter(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.float().contiguous(), requires_grad=False)


def _weight_norm(g: Tensor, v: Tensor) -> Tensor:
    """Apply weight norm (Salimans and Kingma 2016): each output channel has the direction of `v` and the length `g`."""
    v = v.double()
    length: Tensor = torch.linalg.vector_norm(v.flatten(1), dim=1).reshape(-1, *[1] * (v.ndim - 1))
    return g.double() * v / length


def _spectral_norm(weight: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Apply spectral norm (Miyato et al. 2018): divide by the largest singular value, estimated with the stored vectors."""
    weight = weight.double()
    return weight / torch.dot(u.double(), weight.flatten(1) @ v.double())
