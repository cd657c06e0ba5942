"""The store: what every finished run measured, in files with checksums, written atomically."""
