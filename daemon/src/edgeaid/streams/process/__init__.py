"""What runs in a stream's own process: capture, stages, tracking, events, files. The daemon never imports it."""
