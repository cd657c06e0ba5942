"""Where pictures lie, and what is known of them before one is decoded for training."""
