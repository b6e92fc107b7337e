"""Streams: a table turns a camera into tracked events. Here is the daemon's side; `process` runs in a child of it."""
