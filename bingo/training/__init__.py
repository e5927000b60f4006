"""The training loop: batches, state, monitoring, distribution over processes."""
