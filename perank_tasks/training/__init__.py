"""Training PE-Rank: alignment and learning to rank, from examples to a checkpoint.

    recipe.py        every hyper-parameter, checked and hashed; presets.toml
    start.py         a checkpoint to begin with; closed_forms.py solves for its weights
    alignment.py     stage 1: the projector learns to say passages from their embeddings
    ranking.py       stage 2: projector and LLM learn to put passages out, best first
    evaluation.py    what a checkpoint is worth: a night's results over judged queries
    model.py         what is trained; batches.py makes its inputs, losses.py its losses
    trainer.py       Hugging Face's Trainer, in an order of examples that a kill cannot change:
                     example_order.py
    saving.py        what was trained, as a checkpoint of our format or of the published one
    training_folder.py, curves.py   the folder of a training: what it is of, losses by step

    data/            collections, queries and teachers become passages and ranked lists
    run_options.py   a whole run: its form, and what is planned of it; run_training.py does it
    stages/          its steps: data, align, rank, evaluate, register, promote
    kept.py          trainings as artifacts
    card.py          the model card

On several GPUs, after `accelerate config`:

    accelerate launch -m perank_tasks.cli train rank lists/ --preset paper --out run

It has been run on one GPU, and not yet on several.
"""
