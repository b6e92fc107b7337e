"""Programs for child processes: runtimes and converters, each imported only there.

A runtime may crash on a model and a converter needs packages that clash with ours, so none of them runs in the
process that a person started. These files are run by path with another Python (3.10 and later)
and import nothing of this package.
"""
