"""What is wrong with this device: checks with advice, and a report to attach to a fault."""
