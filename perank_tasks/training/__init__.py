"""Training PE-Rank: alignment (stage 1) and learning to rank (stage 2), from data to a checkpoint."""
