"""The plan of a study: its runs, their order and their costs. Pure."""
