"""The adapter that trades at the paper option broker."""
