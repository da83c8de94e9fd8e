"""Datasets, labels and scores."""
