"""The first Neural Compute Stick through libmvnc (NCSDK 1 and 2)."""
