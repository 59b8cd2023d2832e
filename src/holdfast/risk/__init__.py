"""Decide; never send. The account as a fold over the journal, the limits, and the one gate."""
