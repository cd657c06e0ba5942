"""Data sets that are found, fetched or composed by name."""
