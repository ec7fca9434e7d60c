"""Training PE-Rank: alignment and learning to rank, from examples to a checkpoint.

    start.py     a checkpoint to begin with: projector at random, orthonormal or by ridge regression
    align.py     stage 1: the projector learns to say passages from their embeddings
    rank.py      stage 2: projector and LLM learn to put passages out, best first
    recipe.py    every hyper-parameter, checked and hashed; presets
    model.py     what is trained; batches.py makes its inputs, losses.py its losses
    trainer.py   Hugging Face's Trainer with checkpoints that a kill cannot spoil
    saving.py    what was trained, as a checkpoint of our format or of the published one
    curves.py    losses and measures by step, as files and as a plot

    options.py   a whole run: its form, and what is planned of it; pipeline.py does it
    stages/      its steps: data, align, rank, evaluate, register, promote
    kept.py      trainings as artifacts; comparing.py, judged.py measure; card.py describes
    ablation.py, crossvalidation.py   what parts of a recipe, and the LLM, are worth

On several GPUs, after `accelerate config`:

    accelerate launch -m perank_tasks.cli train rank lists/ --preset paper --out run

It has not been run on more than one process, or on a GPU, yet.
"""
