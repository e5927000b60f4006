"""Import of checkpoints of other projects as frozen teachers."""
