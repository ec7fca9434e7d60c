"""Names of mapped tasks: "perank 3/8" for the third of eight shards of that arm.

In: a task of a mapped stage, and what its planning task returned. Out: the name that Airflow's UI
shows. A DAG gives `MACROS` to its templates, and each mapped task `TEMPLATE`.
"""

from typing import Any

from perank_tasks.airflow.tasks import NIGHT
from perank_tasks.config import Night

TEMPLATE = "{{ piece(ti) }}"


def piece_name(ti: Any) -> str:
    """What a mapped task of a night works at: an arm, index or embedder, and which of its shards.

    Pieces are numbers, or records whose texts say of what they are a shard.
    """
    (planning,) = (name for name in ti.task.upstream_task_ids if ".plan_" in name)
    pieces = ti.xcom_pull(task_ids=planning)
    records = [piece if isinstance(piece, dict) else {"shard": piece} for piece in pieces]
    kinds = [[part for part in record.values() if isinstance(part, str)] for record in records]
    kind = kinds[ti.map_index]
    night = Night.from_json(ti.xcom_pull(task_ids=NIGHT.planning.__name__))
    names = {key: embedding.name for key, embedding in night.embeddings.items()}
    names |= {key: stage.name for key, stage in night.first_stages.items()}
    names |= {arm.hash: arm.name for arm in night.arms}
    # An embedder may be a long path.
    words = [str(names.get(part, part)).rpartition("/")[2] for part in kind]
    place, total = kinds[: ti.map_index].count(kind) + 1, kinds.count(kind)
    return " ".join([*words, f"{place}/{total}"])


MACROS = {"piece": piece_name}
