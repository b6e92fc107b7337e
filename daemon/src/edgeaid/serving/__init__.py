"""What serves: the data plane, models and devices at work, recovery, statistics and events."""
