"""Overlays, masks, legends and the HUD, drawn into frames."""
