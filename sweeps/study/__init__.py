"""A study file: TOML to checked specifications of runs. Pure."""
