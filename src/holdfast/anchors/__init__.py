"""Anchors: what a log is remembered by outside itself, so that it cannot be rolled back or shown in two versions."""
