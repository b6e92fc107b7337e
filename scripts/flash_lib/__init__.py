"""The parts of scripts/flash: targets that may be written, images and their check, what goes on the boot partition."""


class Refused(Exception):
    """Nothing was done, or what was done cannot be used. The text says what, where, and what to do next."""
