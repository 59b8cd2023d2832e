"""Hypothesis: the same examples every time, no data base, and the blob that repeats a failure."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "holdfast",
    derandomize=True,
    database=None,
    print_blob=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("holdfast")
