"""Side by side with the peers, in one run: see each module."""
