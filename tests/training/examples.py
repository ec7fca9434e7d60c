"""Random examples of both stages, for tiny models: d = 24."""

import numpy as np

from perank_tasks.training.examples import AlignmentExample, RankingExample
from tests.perank.tiny import EMBEDDING_SIZE

WORDS = ["how", "long", "does", "a", "flea", "live", "define", "visceral", "cost", "of", "thai"]


def unit_vectors(count: int, random: np.random.Generator) -> np.ndarray:
    vectors = random.normal(size=(count, EMBEDDING_SIZE)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def some_lists(
    count: int, seed: int = 0, *, sizes: tuple[int, ...] = (6,), texts: bool = False
) -> list[RankingExample]:
    """Lists whose golden order is by one direction of the embeddings, the same for all."""
    random = np.random.default_rng(seed)
    direction = unit_vectors(1, np.random.default_rng(99))[0]
    lists = []
    for i in range(count):
        n = sizes[i % len(sizes)]
        vectors = unit_vectors(n + 1, random)
        lists.append(
            RankingExample(
                query_id=f"q{i}",
                query=" ".join(random.choice(WORDS, 1 + i % 5)),
                query_embedding=vectors[0],
                passage_ids=[f"q{i}-{j}" for j in range(n)],
                embeddings=vectors[1:],
                texts=[" ".join(random.choice(WORDS, 3 + j)) if texts else "" for j in range(n)],
                ranking=np.argsort(-vectors[1:] @ direction).tolist(),
                scores=random.uniform(0, 30, n).astype(np.float32),
            )
        )
    return lists


def some_passages(count: int, seed: int = 0) -> list[AlignmentExample]:
    """Passages of one word each, said thrice; the embedding is the word's, with some noise."""
    random = np.random.default_rng(seed)
    meanings = unit_vectors(len(WORDS), np.random.default_rng(7))
    found = []
    for i in range(count):
        word = i % len(WORDS)
        vector = meanings[word] + random.normal(size=EMBEDDING_SIZE).astype(np.float32) / 50
        vector = (vector / np.linalg.norm(vector)).astype(np.float32)
        found.append(AlignmentExample(f"p{i}", " ".join([WORDS[word]] * 3), vector))
    return found
