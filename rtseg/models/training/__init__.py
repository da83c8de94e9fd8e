"""Train a U-Net."""
