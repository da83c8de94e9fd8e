"""Types and helpers for all other packages. Imports no other package of rtseg."""
