"""Copying stores, dumping and restoring them, with expiry kept."""
