"""The only path from intent to venue."""
