"""What a run is: specifications, ladder, FLOPs, names of data and networks. Never imports torch."""
