"""The stages of a training run: data, align, rank, evaluate, register, promote.

One stage, one file, one public function, as in `perank_tasks.night`: it takes the planned run and
references of artifacts, publishes an artifact and returns its reference. A DAG task only calls it,
and so does `perank train run`. What is published already is reused, so that a run that was killed
is resumed.
"""
