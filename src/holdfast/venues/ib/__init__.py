"""Interactive Brokers through `ib_async`."""
