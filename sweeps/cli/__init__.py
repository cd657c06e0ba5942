"""The command tokenlaw: one file a family of commands, and no science."""
