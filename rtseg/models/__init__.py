"""Offline: the U-Net, its data, training, evaluation, importing, export and building."""
