"""Concurrent decoding, segmentation, rendering and encoding, on CPU or GPU."""
