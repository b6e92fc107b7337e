"""The pairing of two sets with the least total cost (Kuhn-Munkres, by shortest augmenting paths). Pure."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def assign(cost: Floats, limit: float) -> list[tuple[int, int]]:
    """Pairs (row, column) of least total cost, none of which costs more than `limit`.

    `cost` [n,m], finite. A pair that would cost more than `limit` is worth as much as leaving both alone, so it never
    pushes a good pair aside. O(n * n * m) with the inner loop in numpy.
    """
    rows, columns = cost.shape
    if not rows or not columns:
        return []
    if rows > columns:
        return sorted((r, c) for c, r in assign(cost.T, limit))
    capped = np.minimum(cost, limit + 1e-9)
    owner = _solve(capped)
    return [(r, c) for c, r in enumerate(owner) if r >= 0 and cost[r, c] <= limit]


def _solve(cost: Floats) -> list[int]:
    """Row of each column, -1 where it has none; no more rows than columns."""
    rows, columns = cost.shape
    row_price, column_price = np.zeros(rows), np.zeros(columns)
    owner = np.full(columns, -1)
    for row in range(rows):
        shortest = np.full(columns, np.inf)
        came_from = np.full(columns, -1)
        done = np.zeros(columns, dtype=bool)
        current, column = row, -1
        distance = 0.0
        while True:
            reduced = cost[current] - row_price[current] - column_price + distance
            better = ~done & (reduced < shortest)
            shortest[better] = reduced[better]
            came_from[better] = column
            column = int(np.argmin(np.where(done, np.inf, shortest)))
            distance = float(shortest[column])
            done[column] = True
            if owner[column] < 0:
                break
            current = int(owner[column])
        # Prices of all rows and columns on the way, so that the next search starts from costs that are not negative.
        passed = done & (owner >= 0)
        row_price[row] += distance
        row_price[owner[passed]] += distance - shortest[passed]
        column_price[passed] -= distance - shortest[passed]
        while column >= 0:
            previous = int(came_from[column])
            owner[column] = row if previous < 0 else owner[previous]
            column = previous
    return [int(r) for r in owner]
