"""The commands on laws and what follows from them."""
