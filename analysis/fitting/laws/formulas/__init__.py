"""Laws typed as formulas, and arithmetic over the columns of a table: one grammar, parsed, never run as code."""
