"""Files that later stages trust: written whole or not at all, carrying where they came from, checked when read."""
