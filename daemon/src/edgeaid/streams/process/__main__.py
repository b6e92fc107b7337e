"""`python -m edgeaid.streams.process FD`: run one stream on an inherited SOCK_SEQPACKET descriptor."""

import sys

from .main import main

if __name__ == "__main__":
    main(int(sys.argv[1]))
