"""Shipped fakes: disks that fail and forget, a venue that does as it is told."""
