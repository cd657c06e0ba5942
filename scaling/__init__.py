"""How one run happens: specification, models, training, metrics, rows. The only home of torch.

Importing this package or `scaling.specification` never imports torch.
"""
