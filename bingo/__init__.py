"""BINGO: bag of instances aggregation boosts self-supervised distillation (Xu et al., ICLR 2022)."""
