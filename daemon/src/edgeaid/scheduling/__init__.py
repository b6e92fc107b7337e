"""Queues, deadlines, priorities, switch costs, placement and flow limiting: pure code, time is an argument."""
