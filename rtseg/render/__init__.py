"""Rendering of overlays, masks, legends and performance numbers into frames."""
