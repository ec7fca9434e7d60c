"""Benchmarks that anyone can run: how fast the engine is, and against what.

plain        the reference's way of running PE-Rank, which the engine is measured against
checkpoints  a full-size checkpoint in each prompt, made on the fly
hardware     what the machine can do: its matrix rate, a stock forward pass
workload     queries with candidates, texts and embeddings
rerank       `perank bench rerank`: contenders in turn, ratios, plots
prefill      `perank bench prefill`: the engine's prompts a second against a stock forward pass
together     `perank bench together`: two rankers at once against one after the other
memory       `perank bench memory`: a long stream of queries in little memory
plots        results -> PNG
"""
