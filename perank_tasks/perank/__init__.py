"""PE-Rank: listwise reranking by an LLM that reads one embedding a passage.

    Liu et al., "Leveraging Passage Embeddings for Efficient Listwise Reranking with Large
    Language Models", WWW 2025, arXiv 2406.14848.

    checkpoint_files   files on disk        -> settings and tensors by name
    checkpoint_config  a checkpoint's name  -> what it is, checked, without torch
    checkpoint         a checkpoint's name  -> its weights too
    prompt             query, n             -> token ids and slots
    encoder            texts                -> embeddings
    options            an arm's settings    -> checked
    llm                embedded tokens      -> hidden states, over a key/value cache
    model              LLM, projector       -> prompts embedded, logits of passages
    decode             windows, in a batch  -> their orders
    windows            list length          -> windows to rank
    records            what goes into the engine and comes out
    engine             queries, in a stream -> rankings

The names below load torch only when they are first used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perank_tasks.perank.engine import PERank
    from perank_tasks.perank.options import RankingOptions
    from perank_tasks.perank.records import RerankRequest, RerankResult

__all__ = ["PERank", "RankingOptions", "RerankRequest", "RerankResult"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from perank_tasks.perank import engine

        return getattr(engine, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
