"""Types and helpers that every other package uses. Imports nothing of rtseg."""
