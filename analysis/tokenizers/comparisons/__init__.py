"""Tokenizers against each other: at equal compute, images, rate or quality, and where they cross."""
