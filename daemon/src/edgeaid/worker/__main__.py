"""`python -m edgeaid.worker FD`: run one worker on an inherited SOCK_SEQPACKET descriptor."""

import sys

from .process import main

if __name__ == "__main__":
    main(int(sys.argv[1]))
