"""The version of rtseg."""

__version__ = "0.1.0"
