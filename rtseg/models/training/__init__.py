"""Training of a U-Net."""
