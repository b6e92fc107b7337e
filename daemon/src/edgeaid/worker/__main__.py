"""`python -m edgeaid.worker FD`: start workers on request of the daemon; FD is a SOCK_SEQPACKET descriptor."""

import sys

from .forkserver import main

if __name__ == "__main__":
    main(int(sys.argv[1]))
