"""Evaluation protocols for frozen and fine-tuned backbones."""
