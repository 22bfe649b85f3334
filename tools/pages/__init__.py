"""What makes the pages and figures of the documentation: `python -m tools.pages.NAME` in the root of the repository.

They measure nothing: they read the catalogue, the results in benchmarks/results, or the folder of a finished bench.
"""
