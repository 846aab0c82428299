# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""What stops a run that would spoil its weights or learn nothing, or warns of a slow one."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from rdkit import Chem
from torch.optim import SGD
from transformers import TrainingArguments, get_scheduler

SHOWN_NAMES = 3
SHOWN_ROWS = 4
SHOWN_CHARACTERS = 160
# In the order of the feature extractor.
BOND_TYPES = [
    Chem.BondType.names[name] for name in ("SINGLE", "DOUBLE", "TRIPLE", "AROMATIC", "UNSPECIFIED")
]

# Instructions of CPUs that multiply in bfloat16, as torch names them: of x86, x86 and ARM.
CPU_BFLOAT16 = ("avx512_bf16", "amx_bf16", "bf16")


class GuardError(RuntimeError):
    """A run that would learn nothing, or whose next step would spoil the weights."""


class FiniteGuard:
    """Stops the run when the loss or the gradients are not finite, before they are applied.

    One number tells, the norm of the gradients, which the Trainer computes in each step anyway.
    With DDP, FSDP2 and ZeRO all processes have the same: all stop, and none waits for another.

    Args:
        tokenizer: to show the rows of the batch.
    """

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        self.step = -1
        self.seen: list[tuple[torch.Tensor, dict[str, torch.Tensor]]] = []

    def watch(self, loss: torch.Tensor, inputs: dict[str, torch.Tensor], step: int) -> torch.Tensor:
        """Note the loss of a batch, and make its gradients tell all processes if it is not finite.

        An infinite loss may have finite gradients, and then no other process would know.

        Args:
            loss: of the batch, a scalar.
            inputs: the batch.
            step: number of steps that are done; the batches of one step are accumulated.

        Returns:
            The same loss; with gradients that are NaN where it is not finite.
        """
        if step != self.step:
            self.step = step
            self.seen = []
        self.seen.append((loss.detach(), inputs))
        return loss * torch.ones_like(loss).masked_fill(~loss.isfinite(), math.nan)

    def error(
        self,
        norm: float,
        parameters: Iterable[tuple[str, torch.nn.Parameter]],
        rates: Iterable[float],
        number_format: str,
    ) -> GuardError:
        """The error to raise when the gradients of a step are not finite.

        Args:
            norm: of all gradients.
            parameters: those whose gradients can be seen and are not clipped yet, with names.
            rates: learning rates of the optimizer.
            number_format: what the model computes in.

        Returns:
            An error that names the step, what is not finite, and what to do.
        """
        losses = [loss.item() for loss, _ in self.seen]
        bad = [i for i, loss in enumerate(losses) if not math.isfinite(loss)]
        if bad:
            what = f"the loss is {losses[bad[0]]}"
        else:
            what = f"the norm of the gradients is {norm} (loss on this process: "
            what += f"{', '.join(f'{loss:.4g}' for loss in losses)})"
        names = not_finite(parameters)
        if names:
            what += f", and not finite are the gradients of {shortened(names, SHOWN_NAMES, ', ')}"
        rows = [row for i in bad or range(len(losses)) for row in self._rows(self.seen[i][1])]
        return GuardError(
            f"In step {self.step + 1} {what}. It was not applied: the weights and the last "
            "checkpoint are as they were. Learning rates now: "
            f"{', '.join(f'{rate:.3g}' for rate in sorted(set(rates)))}; {number_format}. Lower "
            "learning_rate or generator_learning_rate; a base_dtype or mixed precision of float16 "
            "overflows where bfloat16 and float32 do not; or look at the rows of this batch: "
            f"{shortened(rows, SHOWN_ROWS, ' | ')}"
        )

    def _rows(self, inputs: dict[str, torch.Tensor]) -> list[str]:
        """Each row's molecule, as far as the graph tells, and its text."""
        texts = self.tokenizer.batch_decode(inputs["input_ids"], skip_special_tokens=True)
        # The end of it, with the answer.
        texts = [" ".join(text.split())[-SHOWN_CHARACTERS:] for text in texts]
        if "graph_atoms" not in inputs:
            return texts
        graphs = {name: t.cpu() for name, t in inputs.items() if name.startswith("graph_")}
        return [
            f"{graph_smiles({name: t[i] for name, t in graphs.items()})} {text!r}"
            for i, text in enumerate(texts)
        ]


def not_finite(parameters: Iterable[tuple[str, torch.nn.Parameter]]) -> list[str]:
    """Names of those whose gradients are not finite; of what is cut up, on this process."""
    names = []
    for name, parameter in parameters:
        gradient = parameter.grad
        if gradient is not None:
            # An FSDP2 gradient is a DTensor.
            part = gradient.to_local() if hasattr(gradient, "to_local") else gradient
            if not part.isfinite().all():
                names.append(name)
    return names


def shortened(texts: list[str], shown: int, separator: str) -> str:
    """The first texts, and how many more there are."""
    more = f" and {len(texts) - shown} more" if len(texts) > shown else ""
    return separator.join(texts[:shown]) + more


def graph_smiles(graph: dict[str, torch.Tensor]) -> str:
    """SMILES, without stereo, of one row of the feature extractor's tensors."""
    if not graph["graph_atom_mask"].any():
        return "(no molecule)"
    mol = Chem.RWMol()
    for features in graph["graph_atoms"][graph["graph_atom_mask"]].tolist():
        atom = Chem.Atom(features[0] + 1)
        atom.SetFormalCharge(features[3] - 5)
        atom.SetNumExplicitHs(features[4])
        atom.SetNoImplicit(True)
        atom.SetIsAromatic(bool(features[7]))
        mol.AddAtom(atom)
    mask = graph["graph_bond_mask"]
    # Each bond is there in both directions, one next to the other.
    bonds = graph["graph_bonds"][:, mask].T[::2].tolist()
    kinds = graph["graph_bond_features"][mask][::2, 0].tolist()
    for (begin, end), kind in zip(bonds, kinds, strict=True):
        mol.AddBond(begin, end, BOND_TYPES[kind])
    return Chem.MolToSmiles(mol)


def check_batches(training_args: TrainingArguments, batches: int) -> None:
    """Refuse data that do not make a single batch.

    Args:
        training_args: with the sizes.
        batches: number of batches of one pass over the data.

    Raises:
        GuardError: names the settings and what to do.
    """
    if batches == 0:
        raise GuardError(
            "Not a single batch: the training data are fewer than per_device_train_batch_size="
            f"{training_args.per_device_train_batch_size} times {training_args.world_size} "
            f"(processes), and dataloader_drop_last={training_args.dataloader_drop_last} leaves "
            "them out. Lower the batch size, or set dataloader_drop_last to false."
        )


def check_schedule(training_args: TrainingArguments, steps: int) -> str | None:
    """Refuse a learning rate that is zero in each step.

    Args:
        training_args: with the schedule.
        steps: number of steps.

    Returns:
        A warning if the rate never rises to what was asked for, otherwise None.

    Raises:
        GuardError: names the settings and what to do.
    """
    warmup = training_args.get_warmup_steps(steps)
    if not any(relative_rates(training_args, steps)):
        raise GuardError(
            f"The learning rate is 0 in all {steps} steps (lr_scheduler_type="
            f"{training_args.lr_scheduler_type.value}, warmup_steps={warmup}): nothing would be "
            "learned. Lower warmup_steps, or train for more steps."
        )
    if warmup >= steps:
        return (
            f"The learning rate rises for warmup_steps={warmup}, but the run has only {steps} "
            "steps: it ends before the rate is what was asked for."
        )
    return None


def check_number_format(device: torch.device, dtypes: Iterable[torch.dtype]) -> str | None:
    """Warn of bfloat16 on a CPU that has no instructions to multiply in it.

    Args:
        device: of the training.
        dtypes: of the model's weights.

    Returns:
        A warning; None where all is well, or where torch does not tell what the CPU can do.
    """
    if device.type != "cpu" or torch.bfloat16 not in dtypes:
        return None
    # Of torch 2.13, not of 2.6.
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    if not capabilities or any(capabilities.get(name) for name in CPU_BFLOAT16):
        return None
    return (
        "This CPU does not multiply in bfloat16, so a step takes several times as long as in "
        "float32: give base_dtype: float32 and attn_implementation: sdpa."
    )


def relative_rates(training_args: TrainingArguments, steps: int) -> Iterator[float]:
    """The learning rate of each step, relative to the one asked for, by the Trainer's schedule."""
    optimizer = SGD([torch.zeros(1)], lr=1.0)
    schedule = get_scheduler(
        training_args.lr_scheduler_type,
        optimizer=optimizer,
        num_warmup_steps=training_args.get_warmup_steps(steps),
        num_training_steps=steps,
        scheduler_specific_kwargs=training_args.lr_scheduler_kwargs,
    )
    for _ in range(steps):
        yield optimizer.param_groups[0]["lr"]
        optimizer.step()
        schedule.step()
