"""Experiments: a question put to the pipeline as a grid of configurations, and its answer.

    options    a TOML file               -> the experiment: cells, baseline, budget
    plan       an experiment             -> its cells, resolved, with their trainings
    cost       a plan                    -> tokens, FLOPs and seconds of what is not done
    cells      a cell                    -> rankings and measures, kept for good
    results    all cells                 -> tables, paired tests against the baseline
    figures    tables                    -> plots
    page       tables                    -> one HTML page; Markdown and images for the docs
    pipeline   a plan                    -> all of it in one process

A cell is a night of one arm that is filed under no date: it shares snapshots, embeddings, indexes
and candidates with every other cell, and is found again by whoever asks for the same one.
`prepared/` holds the experiments that come with the package.
"""
