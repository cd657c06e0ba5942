"""Tables of any dialect read right or refused, and the points of a fit in them."""
