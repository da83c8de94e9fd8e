"""Data sets, labels, and evaluation of models on them."""
