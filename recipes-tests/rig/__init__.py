"""Builds an image of ours with real BitBake, boots it in QEMU and runs commands in it. Standard library only."""
