"""The U-Net in torch: architecture, checkpoints, preprocessing and importers of other libraries."""
