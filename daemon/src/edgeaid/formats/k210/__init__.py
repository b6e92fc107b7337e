"""Kmodels v3 to v5 of the Kendryte K210 and kfpkg flash packages."""
