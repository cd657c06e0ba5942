"""Specifications of the parts of both stages, one class a kind."""
