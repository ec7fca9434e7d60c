"""`python -m perank_tasks.cli train align …`: what `perank` does, for `accelerate launch`."""

from perank_tasks.cli.main import main

main()
