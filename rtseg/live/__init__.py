"""Live segmentation of cameras and streams: reconnecting sources, latest-frame queue, controls and outputs."""
