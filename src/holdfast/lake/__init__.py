"""Delta tables projected from the log; they may be deleted and rebuilt."""
