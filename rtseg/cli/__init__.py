"""The commands of `rtseg`, one module each: they parse, call the library once, and print."""
