"""What to train for a budget: N and D from a law, IsoFLOP parabolas, envelopes."""
