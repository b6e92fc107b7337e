"""Programs that connect other software to the daemon: Frigate's detector protocol."""
