"""The conformance suite and other help for those who test stores and applications."""
