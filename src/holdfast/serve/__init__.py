"""Servers that others talk to; each a process of its own, none of them on the order path."""
