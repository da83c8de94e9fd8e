"""Camera of the synthetic video: projection from meters on the street to pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rtseg.synthetic.canvas import Points

CAMERA_HEIGHT = 1.45
"""Height of the camera above the road, in meters."""


@dataclass(frozen=True)
class CameraView:
    """Pinhole camera along the street. Coordinates in meters: x to the right, y up, z forward."""

    focal: float
    center: float
    """Column of the vanishing point."""
    horizon: float
    """Row of the vanishing point."""
    x: float
    z: float
    """Position along the street, in meters."""
    mirror: float
    """-1 swaps left and right, for traffic on the other side."""
    near: float = 1.2
    """Minimum drawing distance, in meters."""

    @classmethod
    def at(cls, width: int, height: int, seconds: float, speed: float, mirror: float) -> CameraView:
        """Return the camera at a time: it moves at constant speed with a slight sway."""
        focal = float(np.sqrt(width * height))
        yaw = 0.016 * np.sin(0.5 * seconds) + 0.004 * np.sin(1.7 * seconds)
        pitch = 0.003 * np.sin(2.9 * seconds) + 0.0015 * np.sin(7.1 * seconds)
        center = width / 2 + focal * float(yaw) - mirror * 0.02 * width
        horizon = height * 0.49 + focal * float(pitch)
        return cls(focal, center, horizon, 0.25 * float(np.sin(0.4 * seconds)), speed * seconds, mirror)

    def project(self, x: Points | float, y: Points | float, z: Points) -> Points:
        """Project points to pixels, `[N, 2]`; `z` is the distance ahead of the camera."""
        scale = self.focal / z
        pixels = np.empty((len(z), 2))
        pixels[:, 0] = self.center + self.mirror * (x - self.x) * scale
        pixels[:, 1] = self.horizon - (y - CAMERA_HEIGHT) * scale
        return pixels

    def row(self, z: float) -> float:
        """Return the row of the ground at a distance of `z` meters."""
        return self.horizon + CAMERA_HEIGHT * self.focal / z

    def flat(self, x0: float, x1: float, z0: float, z1: float, y: float = 0.0) -> Points:
        """Return the projection of a horizontal rectangle."""
        return self.project(np.array([x0, x1, x1, x0]), y, np.array([z0, z0, z1, z1]))

    def wall(self, x: float, z0: float, z1: float, height: float) -> Points:
        """Return the projection of a vertical rectangle along the street: top `z0`, top `z1`, bottom `z1`, bottom `z0`."""
        return self.project(x, np.array([height, height, 0.0, 0.0]), np.array([z0, z1, z1, z0]))

    def upright(self, x: float, z: float, width: float, height: float) -> Points:
        """Return the projection of a vertical rectangle on the ground that faces the camera."""
        half = width / 2 * self.mirror
        return self.project(
            np.array([x - half, x + half, x + half, x - half]), np.array([height, height, 0.0, 0.0]), np.full(4, z)
        )

    def to_ground(self, per_meter: float, top: int, period: int) -> Points:
        """Return the 3x3 transform from pixels below row `top` to a texture of the ground.

        Args:
            per_meter: resolution of the texture in pixels per meter.
            top: row that becomes row 0.
            period: period of the texture in pixels.
        """
        # z = h f / (row - horizon); x = camera + mirror (column - center) z / f
        h = CAMERA_HEIGHT
        offset = (self.z * per_meter) % period
        across = self.mirror * h * per_meter
        below = top - self.horizon
        return np.array(
            [
                [across, self.x * per_meter, self.x * per_meter * below - across * self.center],
                [0.0, offset, h * self.focal * per_meter + offset * below],
                [0.0, 1.0, below],
            ]
        )
