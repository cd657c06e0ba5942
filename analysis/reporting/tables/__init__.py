"""All tables of a study, and each kind that has a file of its own."""
