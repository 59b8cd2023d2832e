"""The paper option broker: recorded or seeded quotes, one account, its own wire."""
