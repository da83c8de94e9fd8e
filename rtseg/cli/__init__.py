"""Commands of `rtseg`, one module each. A command parses its arguments, calls the library once, and prints the result."""
