"""Adapters for frameworks; none imports another."""
