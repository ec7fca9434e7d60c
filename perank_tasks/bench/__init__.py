"""Benchmarks that anyone can run: how fast the engine is, and against what.

plain        the reference's way of running PE-Rank, which the engine is measured against
checkpoints  a full-size checkpoint in each prompt, made on the fly
hardware     what the machine can do: its matrix rate, a stock forward pass
workload     queries with candidates, texts and embeddings
rerank       `perank bench rerank`: contenders in turn, ratios, plots
prefill      `perank bench prefill`: the engine's prompts a second against a stock forward pass
together     `perank bench together`: two rankers at once against one after the other
memory       `perank bench memory`: a long stream of queries in little memory
corpus       corpora of any size from real text
pipeline     `perank bench pipeline`: what every stage takes, and how it grows with the corpus
pipeline_stage  one stage of it, in a process of its own
plots        results -> PNG
"""
