"""The targets' own compilers: their commands, their output, and flash packages for the K210."""
