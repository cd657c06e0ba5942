"""Rows and pictures of a run, shown by programs of others while it runs."""
