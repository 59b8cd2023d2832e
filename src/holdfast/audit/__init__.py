"""The write-ahead log: if it is not here, it did not happen."""
