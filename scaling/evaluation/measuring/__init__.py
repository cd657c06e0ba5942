"""What is measured of a run's model, and recorded."""
