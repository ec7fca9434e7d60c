"""Teachers that read texts: tiny random models on disk, against plain loops."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BertConfig
from transformers import BertForSequenceClassification as Classifier

from perank_tasks.errors import ConfigError
from perank_tasks.settings import Settings
from perank_tasks.training.data.scorers import (
    PASSAGE_TOKENS,
    UPR_AFTER,
    UPR_BEFORE,
    CrossEncoder,
    QueryLikelihood,
)
from tests.perank.tiny import write_own
from tests.small import GOLDEN, TOPICS, write_collection
from tests.training.data.small import columns, small_lists

TEXTS = [*TOPICS.values(), "short", "word " * 400]
QUERY = "how long does a flea live on a dog"


def write_cross_encoder(folder: Path, labels: int = 1) -> str:
    torch.manual_seed(5)
    tokenizer = AutoTokenizer.from_pretrained(GOLDEN / "encoder")
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=512,
        initializer_range=0.5,
        num_labels=labels,
    )
    Classifier(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def write_llm(folder: Path) -> str:
    write_own(folder / "ranker")
    return str(folder / "ranker-base")


@pytest.fixture
def settings() -> Settings:
    return Settings.from_environment()


def test_a_cross_encoders_scores_are_its_logits(tmp_path: Path, settings: Settings) -> None:
    folder = write_cross_encoder(tmp_path / "cross")
    scores = CrossEncoder(folder, settings).score(QUERY, TEXTS)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = Classifier.from_pretrained(folder).eval()
    with torch.inference_mode():
        plain = [
            float(
                model(
                    **tokenizer(
                        QUERY, text, return_tensors="pt", truncation="longest_first", max_length=512
                    )
                ).logits
            )
            for text in TEXTS
        ]
    np.testing.assert_allclose(scores, plain, atol=1e-4)
    assert len(set(scores.tolist())) == len(TEXTS)
    two = write_cross_encoder(tmp_path / "two", labels=2)
    with pytest.raises(ConfigError, match="gives 2 scores for a pair"):
        CrossEncoder(two, settings)


def test_query_likelihood_is_the_mean_over_the_querys_tokens(
    tmp_path: Path, settings: Settings
) -> None:
    folder = write_llm(tmp_path)
    scores = QueryLikelihood(folder, settings).score(QUERY, TEXTS)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def tokens(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    answer = tokens(f" {QUERY}")
    plain = []
    for text in TEXTS:
        passage = tokens(text.strip())[:PASSAGE_TOKENS]
        prompt = [tokenizer.bos_token_id, *tokens(UPR_BEFORE), *passage, *tokens(UPR_AFTER)]
        with torch.inference_mode():
            logits = model(torch.tensor([[*prompt, *answer]])).logits[0].double()
        logs = logits.log_softmax(-1)
        said = [float(logs[len(prompt) - 1 + i, token]) for i, token in enumerate(answer)]
        plain.append(np.mean(said))
    np.testing.assert_allclose(scores, plain, atol=1e-4)
    assert np.ptp(scores) > 0.01


def test_a_marker_in_a_passage_is_text(tmp_path: Path, settings: Settings) -> None:
    teacher = QueryLikelihood(write_llm(tmp_path), settings)
    marker = teacher.tokenizer.eos_token
    assert teacher.tokenizer.eos_token_id not in teacher._tokens(f"a {marker} b")


def test_teachers_mix_with_others_and_read_each_passage_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    spec = write_collection(tmp_path / "topics")
    cross = write_cross_encoder(tmp_path / "cross")
    read: list[int] = []
    score = CrossEncoder.score

    def counted(self: CrossEncoder, query: str, texts: list[str]) -> np.ndarray:
        read.append(len(texts))
        assert len(set(texts)) == len(texts)
        return score(self, query, texts)

    monkeypatch.setattr(CrossEncoder, "score", counted)
    examples = small_lists(
        spec, teacher="cross-encoder + 0.5*bm25", cross_encoder=cross, lists_per_query=3
    )
    assert len(read) == len(TOPICS)
    assert max(read) < 3 * 6
    plain = CrossEncoder(cross, settings)
    for example, line in list(zip(examples, columns(examples), strict=True))[:4]:
        said = score(plain, example.query, example.texts) + 0.5 * example.scores
        np.testing.assert_allclose(line["teacher"], said, atol=1e-4)
        assert (np.diff(said[example.ranking]) <= 1e-4).all()
    models = examples.artifact.manifest.config["models"]
    assert models["cross-encoder"]["name"] == cross


def test_another_model_of_the_same_name_makes_other_data(tmp_path: Path) -> None:
    spec = write_collection(tmp_path / "topics")
    llm = write_llm(tmp_path)
    values = {"teacher": "query-likelihood", "likelihood_llm": llm, "query_limit": 2}
    first = small_lists(spec, **values)
    assert len(first) == 2
    (tmp_path / "ranker-base" / "note.txt").write_text("changed")
    assert small_lists(spec, **values).artifact.reference != first.artifact.reference
