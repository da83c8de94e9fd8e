"""U-Net in torch: architecture, checkpoints, preprocessing, and importers for checkpoints of other libraries."""
