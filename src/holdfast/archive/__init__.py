"""What leaves the log: exports, and the archive that keeps it."""
