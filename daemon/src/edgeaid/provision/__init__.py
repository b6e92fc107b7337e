"""First boot: the settings that scripts/flash wrote to the card, applied to the system."""
