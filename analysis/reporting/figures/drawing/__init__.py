"""What every figure is drawn with: the sheet, axes, labels, and styles."""
