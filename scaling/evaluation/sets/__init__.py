"""Metrics of a set of images, from its features."""
