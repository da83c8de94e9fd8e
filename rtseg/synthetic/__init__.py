"""The synthetic drive: a moving street whose true classes are known, the test bed of everything else and what `rtseg demo` shows.

drive = SyntheticDrive(960, 540, frames=150, seed=7)
rgb, labels = drive.frame(0)

drive.py      the drive: its arguments, its frames
scene.py      what stands and moves on the street, and where
weather.py    light, haze, sky, the camera's film
view.py       the camera: from meters to pixels
ground.py     road, lane marks, curbs, pavements, shadows
buildings.py  houses
figures.py    cars, people, cyclists, lamps, signs
textures.py   fronts, trees, hedges, fences, asphalt
canvas.py     painting colors and classes at once
"""

from rtseg.synthetic.drive import MIN_SIDE, SyntheticDrive

__all__ = ["MIN_SIDE", "SyntheticDrive"]
