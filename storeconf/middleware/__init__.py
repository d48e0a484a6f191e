"""The built-in middleware: one small class each."""
