"""Grids of a study: axes, conditions and budgets, expanded to runs."""
