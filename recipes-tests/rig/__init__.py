"""The proving ground: builds an image of ours with real BitBake, boots it in QEMU and talks to it. Standard library only."""
