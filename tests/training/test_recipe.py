"""Recipes: presets, changes, and what is refused."""

import json
import re
import subprocess
import sys
from typing import get_args

import pytest

from perank_tasks.errors import ConfigError
from perank_tasks.perank.checkpoint_config import SHIPPED
from perank_tasks.training.recipe import AlignRecipe, Preset, RankRecipe


@pytest.mark.parametrize("preset", get_args(Preset))
def test_presets_are_valid_and_have_names_of_their_own(preset: str) -> None:
    for kind in (AlignRecipe, RankRecipe):
        assert len(kind.preset(preset).hash) == 16
    assert AlignRecipe.preset("paper").hash != AlignRecipe.preset("tiny").hash


def test_the_papers_hyper_parameters() -> None:
    align, rank = AlignRecipe.preset("paper"), RankRecipe.preset("paper")
    assert (align.learning_rate, align.schedule, align.warmup, align.max_tokens) == (
        1e-3,
        "cosine",
        0.03,
        512,
    )
    assert (rank.learning_rate, rank.batch_size, rank.max_tokens) == (2e-5, 32, 4096)
    assert (rank.embeddings_weight, rank.text_weight, rank.kl_weight) == (1, 1, 0.2)
    assert (rank.kl_scaling, rank.prompt, rank.trained_llm) == ("reference", "released-v1", "full")


def test_words_win_over_the_preset() -> None:
    words = ["seed=9", "max_steps=", "residual=false", "step_weights=discount"]
    recipe = RankRecipe.preset("tiny", words)
    assert (recipe.seed, recipe.max_steps) == (9, None)
    assert (recipe.step_weights, recipe.residual) == ("discount", False)
    assert recipe.num_layers == RankRecipe.preset("tiny").num_layers
    assert recipe.hash != RankRecipe.preset("tiny").hash


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["learning_rat=1"], "learning_rate"),
        (["learning_rate=-1"], "greater than 0"),
        (["learning_rate"], "NAME=VALUE"),
        (["prompt=released-v1"], "no place for a query token"),
        (["kl_scaling=sum"], "'reference' or 'mean'"),
        (["layout=published"], "prompt=released-v1, query_token=false"),
        (["residual=false", "score_residual=true"], "set residual=true"),
        (["residual=false", "prompt_order=residual"], "set residual=true"),
        (["attention_start=copying", "projector_start=ridge"], "projector_start=procrustes"),
        (["projector_type=mlp2x_gelu"], "projector_start random"),
        (["embeddings_weight=0"], "nothing would be learnt"),
        (["trained_llm=lora", "train_tokens=true"], "trained_llm=full"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        RankRecipe.preset("tiny", words)


def test_recipes_load_without_torch() -> None:
    """DAG files and forms read them."""
    code = "import sys, perank_tasks.training.recipe; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_command_in_the_card_is_the_recipe_of_what_ships() -> None:
    folder = SHIPPED / "smollm2-bge"
    words = re.findall(r"--set ([a-z_]+=\S+)", (folder / "README.md").read_text())
    kept = json.loads((folder / "config.json").read_text())["training"]["recipe"]
    assert RankRecipe.preset("feedback", words).model_dump(mode="json") == kept
