"""Speed and memory, measured beside the alternatives: `make bench`."""
