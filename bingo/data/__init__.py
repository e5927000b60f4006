"""Images: where they come from, how they are listed, decoded and packed."""
