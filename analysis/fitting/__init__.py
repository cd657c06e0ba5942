"""A law to points: laws, points, and the minimum of their loss."""
