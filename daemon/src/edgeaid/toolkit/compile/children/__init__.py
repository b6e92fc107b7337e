"""Programs for child processes: compilers. Run by path with another Python; they import nothing of this package."""
