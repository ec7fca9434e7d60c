"""Benchmarks that anyone can run: how fast the engine and the pipeline are, and against what.

plain          the reference's way of running PE-Rank, which the engine is measured against
hardware       what the machine can do: its matrix rate
workload       a collection's queries with candidates, texts and embeddings
contenders     the ways to rank, each as one call over a block of queries
rerank         `perank bench rerank`: contenders in turn, their table, ratios and JSON
corpus         corpora of any size from real text
pipeline       `perank bench pipeline`: what every stage takes, and how it grows with the corpus
output         JSON of both
"""
