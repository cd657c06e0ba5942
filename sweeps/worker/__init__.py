"""One attempt at one run: the process that works on it."""
