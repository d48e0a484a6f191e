"""The built-in backends: the settings of each kind of store, and how to build it."""
