"""Switch-aware scheduling against FIFO, round robin and an oracle, in virtual time."""
