"""Commands of `perank` beside the stages, one file each; `perank_tasks.cli` puts them together."""
