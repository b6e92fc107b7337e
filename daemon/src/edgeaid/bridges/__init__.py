"""Other programs' own protocols, each a process of its own that is a client of the daemon."""
