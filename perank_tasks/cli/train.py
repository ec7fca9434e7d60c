"""`perank train`: from a collection to a checkpoint. Each command lives in a file of its own."""

import typer

from perank_tasks.cli import train_data, train_run, train_stages

app = typer.Typer(
    help="Train a checkpoint: data, alignment, learning to rank.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback()
def _commands() -> None:
    """Train a checkpoint in three steps, each of which names the next:

    perank train data makes passages and ranked lists out of a collection; perank train align
    teaches the projector to speak the LLM's language; perank train rank teaches the LLM to rank.

    perank train run does all of it, evaluates what came out beside the champion, registers it and
    promotes it if it is not worse.
    """


app.command("data", help=train_data.HELP)(train_data.data)
app.command("align", help=train_stages.ALIGN_HELP)(train_stages.align)
app.command("rank", help=train_stages.RANK_HELP)(train_stages.rank)
app.command("run", help=train_run.RUN_HELP)(train_run.run)
app.command("ablation", help=train_run.ABLATION_HELP)(train_run.ablation)
app.command("crossvalidate", help=train_run.CROSSVALIDATE_HELP)(train_run.crossvalidate)
