"""The trainer of both stages: in, a model, examples and a loss; out, the model at its best step.

Hugging Face's `Trainer` does the work, on a CPU, a GPU or several. What is added here:

- The order of examples is a function of seed and step alone (`example_order`), so that a training
  that was killed ends with the same weights once it is resumed.
- A point to resume from counts once everything in it is on disk (`resume_points`).
- Curves are written whole at every evaluation, from what the resumed state remembers.
- A time limit counts the time before a kill, and the outcome says where it cut the schedule off.
"""

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.utils import logging as transformers_logging

from perank_tasks.errors import ConfigError, TrainingError
from perank_tasks.support.progress import progress
from perank_tasks.training.curves import plot_curves, write_curves
from perank_tasks.training.example_order import Ordered
from perank_tasks.training.recipe import StageRecipe
from perank_tasks.training.resume_points import last_point, mark_complete, remove_incomplete

Stopped = Literal["schedule", "max_minutes", "patience"]


@dataclass(frozen=True)
class Task:
    """What a stage trains and how it is judged.

    Attributes:
        name: for progress and plots.
        examples: to train on.
        collate: examples to a batch, a dictionary that `model` takes.
        loss: the model's output and the batch to a scalar, and to numbers to show by name.
        measure: the model to measures on development examples; None: there are none.
        select_by: the measure that says which step is best; None: the last one is kept.
        greater_is_better: whether a higher measure is better.
        length: of an example, where batches of like length are wanted.
        learning_rates: {first part of parameters' names: their own rate}.
    """

    name: str
    examples: Sequence[Any]
    collate: Callable[[Sequence[Any]], Any]
    loss: Callable[[Any, Any], tuple[Tensor, dict[str, Tensor]]]
    measure: Callable[[Any], dict[str, float]] | None
    select_by: str | None
    greater_is_better: bool
    length: Callable[[Any], int] | None
    learning_rates: dict[str, float]


@dataclass(frozen=True)
class Outcome:
    """How a training ended: `steps` of `planned`, why, after how many seconds in all; the step
    that was kept with its measure; and all rows of its curves."""

    steps: int
    planned: int
    stopped: Stopped
    seconds: float
    kept_step: int
    kept_measure: float | None
    rows: list[dict[str, Any]]

    def report(self) -> dict[str, Any]:
        """All of it but the rows."""
        return {name: value for name, value in vars(self).items() if name != "rows"}

    def measures(self) -> dict[str, Any]:
        """The development measures of the step that was kept."""
        kept = next((row for row in self.rows if row["step"] == self.kept_step), {})
        return {name: value for name, value in kept.items() if name.startswith("dev_")}


def train(
    model: nn.Module, task: Task, recipe: StageRecipe, folder: Path, *, threads: int
) -> Outcome:
    """Train `model` by a recipe; it then has the weights of the step that was kept.

    Args:
        model: its state dict holds what learns.
        task: data, loss and measures.
        recipe: of either stage.
        folder: for curves and points to resume from; an unfinished run of the same recipe and
            data is resumed there.
        threads: of this process on a CPU.

    Raises:
        ConfigError: sizes of batches that do not divide.
        TrainingError: too few examples, or a loss that is not finite.
        StorageError: the folder cannot be written.
    """
    torch.set_num_threads(threads)
    arguments, planned = _arguments(task, recipe, folder)
    sizes = {"steps": planned, "batch": recipe.batch_size, "seed": recipe.seed}
    data = Ordered(task.examples, length=task.length, **sizes)
    with _quiet_and_deterministic():
        trainer = _StageTrainer(model, arguments, data, task, recipe)
        points = folder / "steps"
        if trainer.is_world_process_zero():
            remove_incomplete(points)
        trainer.accelerator.wait_for_everyone()
        resume = last_point(points)
        # A resumed run was measured at its beginning.
        arguments.eval_on_start = task.measure is not None and resume is None
        with progress(f"{task.name}", planned, "steps") as advance:
            trainer.add_callback(_Flow(trainer, advance))
            trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    model.eval()
    outcome = trainer.outcome(planned)
    if trainer.is_world_process_zero():
        write_curves(folder, outcome.rows)
        kept = outcome.kept_step if outcome.kept_measure is not None else None
        plot_curves(folder / "curves.png", outcome.rows, task.name, kept)
    return outcome


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
        self._task, self._recipe, self._trainee = task, recipe, model
        self._points = Path(str(arguments.output_dir))
        self._shown: dict[str, list[Tensor]] = {}
        self._begun = time.monotonic()
        self._seconds_before = 0.0
        self.stopped: Stopped = "schedule"
        super().__init__(
            model=model,
            args=arguments,
            train_dataset=data,
            # Not read: `evaluate` measures; but without one, none would be asked for.
            eval_dataset=data,
            data_collator=task.collate,
        )
        self.remove_callback(PrinterCallback)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Any,
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        outputs = model(inputs)
        loss, shown = self._task.loss(outputs, inputs)
        for name, value in shown.items():
            self._shown.setdefault(name, []).append(value.detach())
        return (loss, outputs) if return_outputs else loss

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            groups: dict[tuple[float, float], list[nn.Parameter]] = {}
            for name, parameter in (model or self._trainee).named_parameters():
                if parameter.requires_grad:
                    decay = self._recipe.weight_decay if parameter.dim() > 1 else 0.0
                    groups.setdefault((self._rate(name), decay), []).append(parameter)
            self.optimizer = torch.optim.AdamW(
                [
                    {"params": parameters, "lr": rate, "weight_decay": decay}
                    for (rate, decay), parameters in groups.items()
                ],
                lr=self._recipe.learning_rate,
                fused=True,
            )
        return self.optimizer

    def _rate(self, name: str) -> float:
        return self._task.learning_rates.get(name.split(".")[0], self._recipe.learning_rate)

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        assert self._task.measure is not None
        model: Any = self.model
        model.eval()
        with torch.no_grad():
            measures = self._task.measure(model)
        metrics = {f"eval_{name}": value for name, value in measures.items()}
        self.log(dict(metrics))
        if self.is_world_process_zero():
            write_curves(self._points.parent, self.rows())
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
        """Hugging Face would miss what is frozen; only what is unknown is wrong."""
        if load_result.unexpected_keys:
            raise TrainingError(
                f"{self.args.output_dir} was left by another model: "
                f"{', '.join(load_result.unexpected_keys[:3])}. Remove the training's folder"
            )

    def start_clock(self) -> None:
        """Go on counting from what the resumed state remembers."""
        self._seconds_before = max(
            (row["seconds"] for row in self.state.log_history if "seconds" in row), default=0.0
        )
        self._begun = time.monotonic()

    def seconds(self) -> float:
        """Of training so far, those before a kill as far as they were saved included."""
        return self._seconds_before + time.monotonic() - self._begun

    def is_over_time(self) -> bool:
        """Whether the time limit is reached, on any process."""
        limit = self._recipe.max_minutes
        if limit is None:
            return False
        over = self.seconds() >= 60 * limit
        if self.args.world_size > 1:
            flag = torch.tensor(float(over), device=self.args.device)
            over = bool(self.accelerator.reduce(flag, "sum").item() > 0)
        return over

    def is_out_of_patience(self) -> bool:
        """Whether the last evaluations brought no new best."""
        patience, key = self._recipe.patience, f"eval_{self._task.select_by}"
        values = [r[key] for r in self.state.log_history if key in r and r["step"] > 0]
        if patience is None or not values:
            return False
        best = values.index(max(values) if self._task.greater_is_better else min(values))
        return len(values) - 1 - best >= patience

    def rows(self) -> list[dict[str, Any]]:
        """What was logged, one row a step."""
        rows: dict[int, dict[str, Any]] = {}
        history: list[dict[str, Any]] = self.state.log_history
        for entry in history:
            if "train_runtime" in entry:
                continue
            row = rows.setdefault(entry["step"], {"step": entry["step"]})
            for name, value in entry.items():
                if name != "epoch":
                    row[name.replace("eval_", "dev_", 1)] = value
        return [rows[step] for step in sorted(rows)]

    def outcome(self, planned: int) -> Outcome:
        """How it ended."""
        state = self.state
        best = state.best_global_step if self._task.select_by is not None else None
        if state.global_step < planned and self.stopped == "schedule":
            # A run that was killed between its last point and its end does not stop again.
            self.stopped = "patience" if self.is_out_of_patience() else "max_minutes"
        return Outcome(
            steps=state.global_step,
            planned=planned,
            stopped=self.stopped,
            seconds=self.seconds(),
            kept_step=best or state.global_step,
            kept_measure=state.best_metric if best else None,
            rows=self.rows(),
        )


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
        over = self._trainer.is_over_time()
        if over:
            self._trainer.stopped = "max_minutes"
            control.should_training_stop = True
        if over or state.global_step >= state.max_steps:
            control.should_save = True
            control.should_evaluate = args.eval_strategy != "no"
        if control.should_evaluate or control.should_save:
            control.should_log = True

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._trainer.is_out_of_patience():
            self._trainer.stopped = "patience"
            control.should_training_stop = True
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._trainer.accelerator.wait_for_everyone()
        if args.should_save:
            point = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            mark_complete(point, keep=state.best_model_checkpoint)


def _arguments(task: Task, recipe: StageRecipe, folder: Path) -> tuple[TrainingArguments, int]:
    """Hugging Face's arguments, and the steps of the whole schedule."""
    if not len(task.examples):
        raise TrainingError("there are no examples to train on: make data with more of them")
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
        remove_unused_columns=False,
        logging_steps=max(1, recipe.eval_steps // 10),
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=recipe.eval_steps,
        eval_strategy="steps" if measured else "no",
        eval_steps=recipe.eval_steps if measured else None,
        load_best_model_at_end=measured and task.select_by is not None,
        metric_for_best_model=task.select_by if measured else None,
        greater_is_better=task.greater_is_better if measured else None,
        disable_tqdm=True,
        report_to="none",
        ddp_find_unused_parameters=False,
    )
    if arguments.n_gpu > 1:
        # Hugging Face would cut batches up itself, between threads; several GPUs are for
        # accelerate, a process each.
        arguments._n_gpu = 1
    return arguments, planned


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
