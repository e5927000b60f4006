"""Speed and memory, compared with the alternatives: `make bench`."""
