"""How sure a fit is: bootstraps, sandwich errors, profiles, comparisons, held-out validation."""
