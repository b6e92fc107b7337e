"""K210 boards with MaixPy on a serial port, driven by the agent in boards/maixpy."""
