"""The model registry from the command line: what is in it, how it came about, and what hangs together."""
