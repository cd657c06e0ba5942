"""Rows that were measured elsewhere, read with every check and put into the store."""
