"""Cameras and streams: reconnect, latest-frame queue, controls and outputs."""
