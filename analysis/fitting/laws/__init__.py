"""Laws: what a curve can be, from one variable to formulas of the user's own."""
