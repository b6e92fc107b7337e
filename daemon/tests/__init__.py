"""Tests of the daemon's package, in the shape of `src/edgeaid`. Timings live in `benchmarks`."""
