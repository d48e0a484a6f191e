"""Moves between servers that are watched: real processes, and what they saw."""
