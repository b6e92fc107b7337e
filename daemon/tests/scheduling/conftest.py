"""Makes `benchmarks.switching` importable: its simulated device is the test bench too."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
