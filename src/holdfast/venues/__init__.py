"""One folder per venue; adapters know the port in `execution/venue.py`, never each other."""
