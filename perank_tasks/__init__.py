"""PE-Rank as an offline pipeline: see `cli.py` for commands, `stages/` for what a night does."""
