"""Offline work on models: training, evaluation and export."""
