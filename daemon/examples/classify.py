"""Classify pictures, one after the other.

python classify.py PICTURE...
"""

import sys

from edgeaid import errors
from edgeaid.client import Client

with Client() as client:
    client.wait()  # a daemon that has just been started loads its models first
    for picture in sys.argv[1:]:
        try:
            answer = client.classify("digits", picture, max_results=3)
        except errors.EdgeaiError as error:
            print(f"{picture}: {error}", file=sys.stderr)
            continue
        print(f"{picture}: {answer.label} ({answer.score:.2f}) on {answer.device}")
