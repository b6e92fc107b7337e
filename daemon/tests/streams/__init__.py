"""Streams: tables, capture, stages, and a daemon that runs them."""
