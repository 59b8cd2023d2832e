"""The words of the trade: time, money, instruments, orders, positions, refusals, errors. No I/O."""
