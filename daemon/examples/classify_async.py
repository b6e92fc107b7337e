"""Classify many pictures at once: eight requests are under way, the others wait their turn.

python classify_async.py PICTURE...
"""

import asyncio
import sys

from edgeaid.client import AsyncClient


async def main(pictures: list[str]) -> None:
    async with AsyncClient(connections=8) as client:
        await client.wait()
        answers = await asyncio.gather(*(client.classify("digits", picture) for picture in pictures))
    for picture, answer in zip(pictures, answers, strict=True):
        print(f"{picture}: {answer.label} ({answer.score:.2f})")


asyncio.run(main(sys.argv[1:]))
