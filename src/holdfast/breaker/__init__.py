"""Stop calling what is failing: one breaker per dependency, opened by failures, closed by probes."""
