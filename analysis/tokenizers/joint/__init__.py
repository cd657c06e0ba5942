"""One law over tokenizers: what rate, size and training images do to gFID; its rivals, and what it would train."""
