"""The stores themselves. They know nothing of configuration and can be used alone; each is imported on first use."""
