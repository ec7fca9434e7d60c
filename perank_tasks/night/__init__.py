"""The stages of a night, one file each: read artifacts, do one thing, publish an artifact.

    plan → snapshot → embed ┐
                    → index → retrieve → rerank → evaluate → load → verdict → report

A stage's public functions take the `Night` and references of artifacts and return a
reference or a small list: that is all that travels between tasks. A stage that is split
over shards has three: one lists the shards, one does a shard, one publishes the whole; indexing
has five, since every shard is scored by what was counted in all of them. What is in memory is
bounded by a shard or a batch, not by the corpus.
Each can be called again at any time; what is done is found and not done again.
"""
