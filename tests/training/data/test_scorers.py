"""Teachers that read texts: tiny random models on disk, against plain loops."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, BertConfig
from transformers import BertForSequenceClassification as Classifier

from perank_tasks.errors import ConfigError
from perank_tasks.models.cross_encoder import CrossEncoder
from perank_tasks.models.find import resolve_model
from perank_tasks.settings import Settings
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


def cross_encoder(folder: str) -> CrossEncoder:
    return CrossEncoder(
        resolve_model(folder, cache=Settings.from_environment().cache), float32=True
    )


def test_a_cross_encoders_scores_are_its_logits(tmp_path: Path) -> None:
    folder = write_cross_encoder(tmp_path / "cross")
    scores = cross_encoder(folder).score(QUERY, TEXTS)
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
        cross_encoder(two)


def test_teachers_mix_with_others_and_read_each_passage_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    plain = cross_encoder(cross)
    for example, line in list(zip(examples, columns(examples), strict=True))[:4]:
        said = score(plain, example.query, example.texts) + 0.5 * example.scores
        np.testing.assert_allclose(line["teacher"], said, atol=1e-4)
        assert (np.diff(said[example.ranking]) <= 1e-4).all()
    assert examples.artifact.manifest.config["cross_encoder"]


def test_another_model_of_the_same_name_makes_other_data(tmp_path: Path) -> None:
    spec = write_collection(tmp_path / "topics")
    cross = write_cross_encoder(tmp_path / "cross")
    values = {"teacher": "cross-encoder", "cross_encoder": cross, "query_limit": 2}
    first = small_lists(spec, **values)
    assert len(first) == 2
    (tmp_path / "cross" / "note.txt").write_text("changed")
    assert small_lists(spec, **values).artifact.reference != first.artifact.reference
