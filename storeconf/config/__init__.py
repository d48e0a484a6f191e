"""Text to layout: reading, merging, variables, interpolation, validation."""
