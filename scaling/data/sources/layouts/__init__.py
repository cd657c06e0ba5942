"""The layouts in which a user's own pictures may lie, one file a kind."""
