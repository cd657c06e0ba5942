"""What a study says of its tokenizers: frames, fronts, crossovers, multipliers, contrasts, best pairs."""
