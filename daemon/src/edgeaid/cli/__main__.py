"""`python -m edgeaid.cli`: the command `edgeai`."""

from . import main

main()
