"""The trainer of both stages: in, a model, examples and a loss; out, the model at its best step.

Hugging Face's `Trainer` does the work, on a CPU, a GPU or several. What is added here:

- The order of examples is a function of seed and step alone (`example_order`), so that a training
  that was killed ends with the same weights once it is resumed.
- A training resumes from its last whole point; one that a kill left unfinished is removed.
- Curves are written whole at every evaluation, from what the resumed state remembers.
- A time limit counts the time before a kill, and the outcome says where it cut the schedule off.
"""

import json
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState  # type: ignore[import-untyped]
from torch import Tensor, nn
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.utils import logging as transformers_logging

from perank_tasks.errors import ConfigError, TrainingError
from perank_tasks.support.progress import progress
from perank_tasks.training.curves import plot_curves, write_curves
from perank_tasks.training.example_order import Ordered
from perank_tasks.training.examples import Examples
from perank_tasks.training.recipe import StageRecipe
from perank_tasks.training.training_folder import Run

log = logging.getLogger(__name__)

GPU_WORKERS = 2
"""Processes that make batches beside a GPU: of 64 lists one takes as long as 30 layers' step."""


@dataclass(frozen=True)
class Task:
    """What a stage trains and how it is judged.

    Attributes:
        name: for progress and plots.
        examples: to train on.
        collate: examples to a batch, a dictionary that `model` takes.
        loss: the model's output and the batch to a scalar, and to numbers to show by name.
        measure: the model to measures on development examples; None: there are none, and the last
            step is kept.
        select_by: the measure that says which step is best, the lowest loss or the highest other.
        length: of an example, where batches of like length are wanted.
        learning_rates: {first part of parameters' names: their own rate}.
    """

    name: str
    examples: Examples[Any]
    collate: Callable[[Sequence[Any]], Any]
    loss: Callable[[Any, Any], tuple[Tensor, dict[str, Tensor]]]
    measure: Callable[[Any], dict[str, float]] | None
    select_by: str
    length: Callable[[Any], int] | None = None
    learning_rates: dict[str, float] = field(default_factory=dict)


def train(model: nn.Module, task: Task, recipe: StageRecipe, run: Run) -> dict[str, Any]:
    """Train `model` by a recipe; it then has the weights of the step that was kept.

    Args:
        model: its state dict holds what learns.
        task: data, loss and measures.
        recipe: of either stage.
        run: whose folder holds curves and points to resume from; an unfinished run of the same
            recipe and data is resumed there.

    Returns:
        How it ended: `steps` of `planned`, `stopped` by schedule, max_minutes or patience, after
        `seconds` in all; `kept_step`, `kept_measure`, and that step's development `measures`.

    Raises:
        ConfigError: sizes of batches that do not divide.
        TrainingError: a loss that is not finite.
        StorageError: the folder cannot be written.
    """
    folder = run.folder
    torch.set_num_threads(run.threads)
    arguments = _arguments(task, recipe, folder)
    data = Ordered(
        task.examples,
        steps=arguments.max_steps,
        batch=recipe.batch_size,
        seed=recipe.seed,
        length=task.length,
    )
    with _quiet_and_deterministic():
        trainer = _StageTrainer(model, arguments, data, task, recipe)
        with PartialState().main_process_first():
            point = last_point(folder / "steps")
        # A resumed run was measured at its beginning.
        arguments.eval_on_start = task.measure is not None and point is None
        with progress(task.name, arguments.max_steps, "steps") as advance:
            trainer.add_callback(_Flow(trainer, advance))
            trainer.train(resume_from_checkpoint=str(point) if point else None)
    model.eval()
    rows, state = trainer.rows(), trainer.state
    if trainer.is_world_process_zero():
        write_curves(folder, rows)
        plot_curves(folder / "curves.png", rows, task.name, state.best_global_step)
    kept = state.best_global_step or state.global_step
    values = next((row for row in rows if row["step"] == kept), {})
    return {
        "steps": state.global_step,
        "planned": state.max_steps,
        "stopped": trainer.stopped_by(),
        "seconds": trainer.seconds(),
        "kept_step": kept,
        "kept_measure": state.best_metric,
        "measures": {name: value for name, value in values.items() if name.startswith("dev_")},
    }


def last_point(folder: Path) -> Path | None:
    """The latest point to resume from; those after it, which a kill left unfinished, are removed.

    Hugging Face's Trainer writes a point's state last: one without it is not whole.
    """
    points = {int(point.name.rpartition("-")[2]): point for point in folder.glob("checkpoint-*")}
    for step in sorted(points, reverse=True):
        try:
            json.loads((points[step] / "trainer_state.json").read_text(encoding="utf-8"))
            return points[step]
        except (OSError, ValueError):
            log.info("step %d was not saved whole: removed", step)
            shutil.rmtree(points[step])
    return None


class _StageTrainer(Trainer):
    """Hugging Face's Trainer with a task's loss and measures."""

    def __init__(
        self,
        model: nn.Module,
        arguments: TrainingArguments,
        data: Ordered,
        task: Task,
        recipe: StageRecipe,
    ) -> None:
        self._task, self._recipe = task, recipe
        self._shown: dict[str, list[Tensor]] = {}
        self._begun = time.monotonic()
        super().__init__(
            model=model,
            args=arguments,
            train_dataset=data,
            # Not read: `evaluate` measures; but without one, none would be asked for.
            eval_dataset=data,
            data_collator=task.collate,
        )
        self.remove_callback(PrinterCallback)

    def compute_loss(self, model: Any, inputs: Any, *_: Any, **__: Any) -> Tensor:
        loss, shown = self._task.loss(model(inputs), inputs)
        for name, value in shown.items():
            self._shown.setdefault(name, []).append(value.detach())
        return loss

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            groups: dict[tuple[float, float], list[nn.Parameter]] = {}
            trainee: Any = model or self.model
            for name, parameter in trainee.named_parameters():
                if parameter.requires_grad:
                    rate = self._task.learning_rates.get(
                        name.split(".")[0], self._recipe.learning_rate
                    )
                    decay = self._recipe.weight_decay if parameter.dim() > 1 else 0.0
                    groups.setdefault((rate, decay), []).append(parameter)
            self.optimizer = torch.optim.AdamW(
                [
                    {"params": parameters, "lr": rate, "weight_decay": decay}
                    for (rate, decay), parameters in groups.items()
                ],
                lr=self._recipe.learning_rate,
                fused=True,
            )
        return self.optimizer

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        assert self._task.measure is not None
        model: Any = self.model
        model.eval()
        with torch.no_grad():
            measures = self._task.measure(model)
        metrics = {f"eval_{name}": value for name, value in measures.items()}
        self.log(dict(metrics))
        if self.is_world_process_zero():
            write_curves(Path(str(self.args.output_dir)).parent, self.rows())
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            if not math.isfinite(logs["loss"]):
                raise TrainingError(
                    f"the loss is {logs['loss']} at step {self.state.global_step}: lower the "
                    f"learning rate, or look for embeddings that are not finite"
                )
            logs |= {name: float(torch.stack(v).mean()) for name, v in self._shown.items()}
            self._shown.clear()
        logs["seconds"] = round(self.seconds(), 2)
        super().log(logs, start_time)

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Nothing: Hugging Face would miss what is frozen, which no point holds."""

    def start_clock(self) -> None:
        """Go on counting from what the resumed state remembers."""
        before = [row["seconds"] for row in self.state.log_history if "seconds" in row]
        self._begun = time.monotonic() - max(before, default=0.0)

    def seconds(self) -> float:
        """Of training so far, those before a kill as far as they were saved included."""
        return time.monotonic() - self._begun

    def is_over_time(self) -> bool:
        """Whether the time limit is reached, on any process."""
        limit = self._recipe.max_minutes
        if limit is None:
            return False
        over = torch.tensor(float(self.seconds() >= 60 * limit), device=self.args.device)
        return bool(self.accelerator.reduce(over, "sum").item() > 0)

    def is_out_of_patience(self) -> bool:
        """Whether the last evaluations brought no new best."""
        patience, key = self._recipe.patience, f"eval_{self._task.select_by}"
        values = [r[key] for r in self.state.log_history if key in r and r["step"] > 0]
        if patience is None or not values:
            return False
        best = values.index(max(values) if self.args.greater_is_better else min(values))
        return len(values) - 1 - best >= patience

    def rows(self) -> list[dict[str, Any]]:
        """What was logged, one row a step."""
        rows: dict[int, dict[str, Any]] = {}
        history: list[dict[str, Any]] = self.state.log_history
        for entry in history:
            if "train_runtime" in entry:
                continue
            values = {n.replace("eval_", "dev_", 1): v for n, v in entry.items() if n != "epoch"}
            rows.setdefault(entry["step"], {"step": entry["step"]}).update(values)
        return [rows[step] for step in sorted(rows)]

    def stopped_by(self) -> str:
        """What ended it: schedule, patience or max_minutes."""
        if self.state.global_step == self.state.max_steps:
            return "schedule"
        return "patience" if self.is_out_of_patience() else "max_minutes"


class _Flow(TrainerCallback):
    """When to measure, save and stop, beside the schedule; and a progress bar."""

    def __init__(self, trainer: _StageTrainer, advance: Callable[[int], None]) -> None:
        self._trainer, self._advance = trainer, advance

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._trainer.start_clock()
        self._advance(state.global_step)
        # It was killed after it had stopped: one step, which nobody keeps, ends it again.
        control.should_training_stop = self._trainer.is_out_of_patience()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._advance(1)
        if self._trainer.is_over_time():
            control.should_training_stop = control.should_save = True
            control.should_evaluate = args.eval_strategy != "no"
        if control.should_evaluate or control.should_save:
            control.should_log = True

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._trainer.is_out_of_patience():
            control.should_training_stop = control.should_save = True


def _arguments(task: Task, recipe: StageRecipe, folder: Path) -> TrainingArguments:
    """Hugging Face's arguments; `max_steps` are those of the whole schedule."""
    planned = recipe.max_steps or math.ceil(recipe.epochs * len(task.examples) / recipe.batch_size)
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    share, rest = divmod(recipe.batch_size, processes)
    at_once = min(recipe.device_batch_size or share, share) if share else 0
    if rest or not share or share % at_once:
        raise ConfigError(
            f"batch_size {recipe.batch_size} cannot be shared between {processes} processes with "
            f"device_batch_size {recipe.device_batch_size} at once: it must be a multiple of both "
            f"together"
        )
    measured = task.measure is not None
    arguments = TrainingArguments(
        output_dir=str(folder.absolute() / "steps"),
        max_steps=planned,
        per_device_train_batch_size=at_once,
        gradient_accumulation_steps=share // at_once,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=recipe.schedule,
        warmup_steps=math.ceil(recipe.warmup * planned),
        max_grad_norm=recipe.max_grad_norm,
        bf16=recipe.precision == "bfloat16",
        seed=recipe.seed,
        use_cpu=not torch.cuda.is_available(),
        # Hugging Face would shuffle anew: the data's own order is the one that counts.
        train_sampling_strategy="sequential",
        dataloader_pin_memory=torch.cuda.is_available(),
        dataloader_num_workers=GPU_WORKERS if torch.cuda.is_available() else 0,
        remove_unused_columns=False,
        logging_steps=max(1, recipe.eval_steps // 10),
        logging_nan_inf_filter=False,
        save_steps=recipe.eval_steps,
        # The last point; and the best, where one is.
        save_total_limit=1,
        eval_strategy="steps" if measured else "no",
        eval_steps=recipe.eval_steps,
        load_best_model_at_end=measured,
        metric_for_best_model=task.select_by if measured else None,
        greater_is_better=task.select_by != "loss",
        disable_tqdm=True,
        report_to="none",
        ddp_find_unused_parameters=False,
    )
    if arguments.n_gpu > 1:
        # Hugging Face would cut batches up itself, between threads; several GPUs are for
        # accelerate, a process each.
        arguments._n_gpu = 1
    return arguments


@contextmanager
def _quiet_and_deterministic() -> Iterator[None]:
    """On a CPU the same steps give the same bits; transformers does not warn that a state dict
    holds only what learns."""
    before = torch.are_deterministic_algorithms_enabled()
    memory: Any = torch.utils.deterministic
    filled = memory.fill_uninitialized_memory
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    if not torch.cuda.is_available():
        torch.use_deterministic_algorithms(True)
        # Nothing reads memory that it has not written: filling it would only cost time.
        memory.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        memory.fill_uninitialized_memory = filled
        transformers_logging.set_verbosity(verbosity)
