"""Parameters and FLOPs of what a specification names, in closed form."""
