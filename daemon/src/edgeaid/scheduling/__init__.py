"""Which request a device serves next: queues, deadlines, costs, placement. Pure, no I/O."""
