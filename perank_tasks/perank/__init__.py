"""PE-Rank: listwise reranking by an LLM that reads one embedding a passage.

    Liu et al., "Leveraging Passage Embeddings for Efficient Listwise Reranking with Large
    Language Models", WWW 2025, arXiv 2406.14848.

    checkpoint_files    files on disk        -> settings and tensors by name
    checkpoint_config   a checkpoint's name  -> what it is, checked, without torch
    checkpoint_adapter  a LoRA adapter       -> an LLM with it merged
    checkpoint          a checkpoint's name  -> its weights too
    embedders           an embedder's name   -> what makes embeddings by it
    options             an arm's settings    -> checked
    prompt              query, n             -> token ids and slots
    llm                 embedded tokens      -> hidden states, over a key/value cache
    projector           embeddings           -> the LLM's vectors for passages
    model               LLM, projector       -> prompts embedded, logits of passages
    windows             list length          -> windows to rank
    shapes              checkpoint, device   -> rows and lengths of every pass
    block               windows              -> prompts read, a cache to decode from
    decode              a block              -> its windows' orders
    ranking             a CandidateList      -> its windows in turn, a RankedList
    rounds              lists in progress    -> blocks of windows, in the memory there is
    inputs              texts and ids        -> a CandidateList
    engine              a stream of lists    -> the public API, `PERank`

What is exported here is loaded when it is first used, `PERank` with torch and lists with numpy: the
command line asks neither for its help.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perank_tasks.perank.engine import PERank
    from perank_tasks.perank.options import RankingOptions
    from perank_tasks.support.lists import CandidateList, RankedList

__all__ = ["CandidateList", "PERank", "RankedList", "RankingOptions"]

_MODULES = {
    "CandidateList": "perank_tasks.support.lists",
    "PERank": "perank_tasks.perank.engine",
    "RankedList": "perank_tasks.support.lists",
    "RankingOptions": "perank_tasks.perank.options",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
