"""The child process that owns one device, its wire format and its supervision.

`wire` is the format, `process` runs in the child, `handle` is the daemon's end of one child.
"""
