"""Every figure, each a function of frames that draws."""
