"""Frozen networks: features behind the metrics, and the perceptual losses."""
