"""Text to plain data, one module per format: values, problems, and places."""
