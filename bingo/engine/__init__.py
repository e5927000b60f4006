"""The training loop and what it needs: device, precision, schedule, state, log."""
