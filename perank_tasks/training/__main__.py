"""`python -m perank_tasks.training align`: what `perank train` does, for `accelerate launch`."""

from perank_tasks.cli import run
from perank_tasks.commands.train import app

run(app)
