"""Deterministic weights and a test image, identical on every machine and in every Python from 3.7 on.

The importers are compared with the original libraries of the networks. The libraries run where they are installed
(`benchmarks/importers`), and rtseg runs anywhere, both with the weights that these functions generate from the names and
shapes in a small file.
"""

import zlib

import numpy as np


def fill(shapes, seed):
    """Return weights like those of a trained network: the scale of activations is constant from layer to layer.

    Args:
        shapes: shape of each tensor by its name in the state dict.
        seed: random seed.

    Returns:
        float32 arrays by name; int64 for the counters of BatchNorm.
    """
    arrays = {name: _fill_one(name, tuple(shape), seed) for name, shape in shapes.items()}
    for name in shapes:
        if name.endswith("weight_orig"):  # spectral norm: the singular vectors of these weights
            u, v = _singular_vectors(arrays[name])
            arrays[name[: -len("orig")] + "u"], arrays[name[: -len("orig")] + "v"] = u, v
    return arrays


def _fill_one(name, shape, seed):
    if name.endswith("num_batches_tracked"):
        return np.array(100, dtype=np.int64)
    # NumPy guarantees that the sequence of RandomState never changes.
    state = np.random.RandomState((zlib.crc32(name.encode()) + seed * 7919) % 2**32)
    random = state.random_sample(shape)
    last = name.rsplit(".", 1)[-1]
    if last == "gamma":  # self-attention
        values = 0.5 + 0 * random
    elif last == "running_var":
        values = 0.5 + random
    elif last == "weight_g":  # weight norm: the norm of a row of He et al.'s weights
        values = 1.2 + 0.4 * random
    elif len(shape) >= 2:
        values = _kernel(random, state)
    elif last == "weight":  # of a normalization
        ends_residual = ".bn2." in name or ".bn3." in name  # small, because sums would grow from block to block
        values = (0.2 if ends_residual else 0.9) + 0.4 * random
    else:  # biases and running means
        values = (random - 0.5) * 0.4
    if (".shuf." in name or name.startswith("layers.8.")) and not shape[0] % 4:
        # Pixel shuffle arranges four channels as 2x2 pixels, which are similar but not equal, as after its initialization.
        values[...] = 0.9 * np.repeat(values[::4], 4, axis=0) + 0.1 * values
    return np.asarray(values, dtype=np.float32).reshape(shape)


def _kernel(random, state):
    """Return weights of He et al.'s variance that mostly blur, so that class maps have areas instead of single pixels."""
    transposed = random.shape[2:] == (2, 2)
    channels_in = random.shape[0] if transposed else random.shape[1]
    noise = (random - 0.5) * (24.0 / channels_in) ** 0.5
    if random.ndim < 4 or random.shape[2:] == (1, 1):
        return noise
    shared = (state.random_sample((*random.shape[:2], 1, 1)) - 0.5) * (24.0 / channels_in) ** 0.5
    size = random.shape[2]
    window = np.minimum(np.arange(1, size + 1), np.arange(size, 0, -1)).astype(np.float64)
    window = np.outer(window, window)
    if transposed:
        return 0.9 * shared + 0.1 * noise
    return shared * window / window.sum() + 0.3 * noise / size


def _singular_vectors(weight):
    matrix = weight.reshape(weight.shape[0], -1).astype(np.float64)
    v = np.ones(matrix.shape[1]) / matrix.shape[1] ** 0.5
    for _ in range(10):
        u = matrix @ v
        u /= np.linalg.norm(u)
        v = matrix.T @ u
        v /= np.linalg.norm(v)
    return u.astype(np.float32), v.astype(np.float32)


def image(height, width):
    """Return a street of flat colors, uint8 `[height, width, 3]`, RGB, with edges in all directions and uniform areas."""
    y, x = np.mgrid[0:height, 0:width] * 240 // np.array([height, width]).reshape(2, 1, 1)  # 0 to 239 in both
    street = np.empty((height, width, 3), dtype=np.uint8)
    street[:] = (120, 170, 230)
    street[(x < 80) & (y > 50 + x // 4)] = (140, 90, 70)
    street[(x > 170) & (y > 30)] = (90, 100, 110)
    street[(x - 120) ** 2 + (y - 60) ** 2 < 900] = (40, 120, 50)
    street[y > 130] = (170, 160, 160)
    street[(y > 130) & (abs(x - 120) < y - 120)] = (80, 80, 85)
    street[(y > 130) & (abs(x - 120) < (y - 130) // 16 + 1)] = (240, 240, 230)
    street[(y > 110) & (y < 170) & (x > 60) & (x < 110)] = (200, 30, 30)
    street[(y > 150) & (y < 200) & (x > 150) & (x < 200)] = (30, 40, 160)
    street[(x % 240 > 200) & (x < 210) & (y > 20)] = (20, 20, 20)
    return street
