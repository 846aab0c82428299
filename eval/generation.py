# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Loading what was trained, and batched greedy answers of it or of its base alone."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from huggingface_hub.errors import HFValidationError
from peft import PeftConfig, PeftModel
from tqdm.auto import tqdm
from transformers import (
    AutoModelForCausalLM,
    AutoProcessor,
    PreTrainedConfig,
    PreTrainedModel,
    ProcessorMixin,
)
from transformers.utils import find_adapter_config_file

from eval.text_only import TextOnlyModel
from modeling_mora.chat_mora import end_token_ids, read_answer
from modeling_mora.checkpoint_mora import base_fingerprint, load_base_config

# Tokens allowed beyond the longest training answer: an answer that needs more is not the short
# answer that was asked for, and every spare token costs the base model, which rarely stops, a step.
ANSWER_MARGIN = 8


@dataclass(frozen=True)
class Answer:
    """What the model wrote.

    Attributes:
        text: the answer without special tokens, stripped.
        finished: whether the model ended the answer itself. False means that it was cut off at
            `max_new_tokens`, perhaps in the middle of a number.
    """

    text: str
    finished: bool


def method_of(name_or_path: str) -> str:
    """By which method of `training.finetune` a checkpoint (folder or Hub id) was trained.

    Returns:
        `"mora"`, `"lora"`, `"graph_prefix"` or `"full_finetune"`.

    Raises:
        OSError: there is no such checkpoint.
        ValueError: it is a checkpoint of something else.
    """
    try:
        if find_adapter_config_file(name_or_path) is None:
            config, _ = PreTrainedConfig.get_config_dict(name_or_path)
        else:
            config = {"peft_type": PeftConfig.from_pretrained(name_or_path).peft_type.value}
    except (OSError, HFValidationError) as error:
        raise OSError(
            f"{name_or_path!r} is neither a folder with a MoRA checkpoint nor one on the Hub that "
            f"can be read from here ({str(error).strip().splitlines()[0]})"
        ) from error
    kind = config.get("peft_type") or config["model_type"]
    methods = {"LORA": "lora", "mora": "mora", "mora_graph_prefix": "graph_prefix"}
    if kind in methods:
        return methods[kind]
    if config.get("base_model_name_or_path") is not None:
        return "full_finetune"
    raise ValueError(
        f"{name_or_path!r} is a {kind} model, not a MoRA checkpoint: give what "
        "training.finetune or save_pretrained has written"
    )


def require_mora(name_or_path: str) -> None:
    """Raise a ValueError unless a checkpoint is one of MoRA, whose weights are generated."""
    method = method_of(name_or_path)
    if method != "mora":
        raise ValueError(
            f"{name_or_path!r} is a {method} checkpoint, but only MoRA generates weights: give one "
            "trained with method=mora"
        )


def load_processor(name_or_path: str) -> ProcessorMixin:
    """Load the processor of a checkpoint (folder or Hub id) of any method.

    Raises:
        OSError: there is no such checkpoint.
        ValueError: it is a checkpoint of something else.
    """
    method_of(name_or_path)
    return AutoProcessor.from_pretrained(name_or_path, trust_remote_code=True)


def load_model(name_or_path: str) -> PreTrainedModel | TextOnlyModel:
    """Load a checkpoint (folder or Hub id) of any method for inference.

    Where this package's `modeling_mora` is imported, transformers prefers its classes to the code
    that the checkpoint carries. The model goes to the GPU when there is one.

    Returns:
        A model that takes text and graphs, and is its base inside `disable_adapter()`. Its `config`
        says which base that is.

    Raises:
        OSError: the checkpoint or its base is missing.
        ValueError: it is a checkpoint of something else.
    """
    method = method_of(name_or_path)
    if method == "lora":
        model = TextOnlyModel(_load_lora(name_or_path))
    else:
        model = AutoModelForCausalLM.from_pretrained(name_or_path, trust_remote_code=True)
        if method == "full_finetune":
            model = TextOnlyModel(model)
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def _load_lora(name_or_path: str) -> PeftModel:
    """The adapter on its base, whose configuration then says which base it is."""
    adapter = PeftConfig.from_pretrained(name_or_path)
    name, revision = adapter.base_model_name_or_path, adapter.revision
    load_base_config(name, revision)
    base = AutoModelForCausalLM.from_pretrained(name, revision=revision or "main")
    base.config.base_model_name_or_path = name
    base.config.base_revision = revision
    base.config.base_fingerprint = base_fingerprint(base)
    return PeftModel.from_pretrained(base, name_or_path)


def answer_budget(processor: ProcessorMixin, answers: Sequence[str]) -> int:
    """Return `max_new_tokens`: the longest of `answers` in tokens, plus a margin.

    Args:
        processor: the model's processor.
        answers: answers of the training split, or one that is as long as they get.
    """
    tokenized = processor.tokenizer(sorted(set(answers)), add_special_tokens=False)["input_ids"]
    return max(map(len, tokenized)) + ANSWER_MARGIN


def generate_answers(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    prompts: Sequence[str],
    molecules: Sequence[str | None],
    max_new_tokens: int,
    batch_size: int = 32,
    use_adapter: bool = True,
    description: str = "generating",
) -> list[Answer]:
    """Answer every prompt and return the answers in row order.

    Takes the arguments of [`iterate_answers`].
    """
    answers: dict[int, Answer] = {}
    for batch in iterate_answers(
        model, processor, prompts, molecules, max_new_tokens, batch_size, use_adapter, description
    ):
        answers.update(batch)
    return [answers[row] for row in range(len(prompts))]


def iterate_answers(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    prompts: Sequence[str],
    molecules: Sequence[str | None],
    max_new_tokens: int,
    batch_size: int = 32,
    use_adapter: bool = True,
    description: str = "generating",
) -> Iterator[dict[int, Answer]]:
    """Answer the prompts batch by batch, with a progress bar.

    Prompts of similar length share a batch, the longest come first: little padding, and a batch
    that does not fit into memory fails at once and not at the end.

    Args:
        model: what [`load_model`] returns.
        processor: its processor.
        prompts: texts of the user turn.
        molecules: molecules aligned with `prompts`; None for a row without one.
        max_new_tokens: longest answer, see [`answer_budget`].
        batch_size: rows per batch.
        use_adapter: False asks the base model alone, on the same loaded weights.
        description: label of the progress bar.

    Yields:
        For each batch, row number -> answer.

    Raises:
        ValueError: if `prompts` and `molecules` differ in length.
    """
    if len(prompts) != len(molecules):
        raise ValueError(
            f"{len(prompts)} prompts but {len(molecules)} molecules: pass one molecule per prompt, "
            "None for a prompt without one"
        )
    lengths = (
        [len(ids) for ids in processor.tokenizer(list(prompts))["input_ids"]] if prompts else []
    )
    order = sorted(range(len(prompts)), key=lambda row: lengths[row], reverse=True)

    with tqdm(total=len(order), desc=description, unit="row") as progress:
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            # Entered per batch: between two yields the caller must find the model as it was.
            with contextlib.nullcontext() if use_adapter else model.disable_adapter():
                answers = _generate_batch(
                    model,
                    processor,
                    [_conversation(prompts[row], molecules[row]) for row in rows],
                    max_new_tokens,
                )
            progress.update(len(rows))
            yield dict(zip(rows, answers, strict=True))


def _conversation(prompt: str, molecule: str | None) -> list[dict]:
    content = [{"type": "text", "text": prompt}]
    if molecule is not None:
        content.insert(0, {"type": "molecule", "molecule": molecule})
    return [{"role": "user", "content": content}]


@torch.inference_mode()
def _generate_batch(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    conversations: list[list[dict]],
    max_new_tokens: int,
) -> list[Answer]:
    tokenizer = processor.tokenizer
    inputs = processor.apply_chat_template(
        conversations,
        tokenize=True,
        return_dict=True,
        add_generation_prompt=True,
        padding=True,
        return_tensors="pt",
    ).to(model.device)
    end_ids = end_token_ids(model, tokenizer)
    tokens = model.generate(
        **inputs,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
        # Some base models ship a repetition penalty, which would punish repeated digits.
        repetition_penalty=1.0,
        eos_token_id=end_ids,
        pad_token_id=tokenizer.pad_token_id,
    )
    tokens = tokens[:, inputs["input_ids"].shape[1] :]
    finished = torch.isin(tokens, torch.tensor(end_ids, device=tokens.device)).any(dim=1)
    texts = [read_answer(tokenizer, row).strip() for row in tokens]
    return [Answer(text, end) for text, end in zip(texts, finished.tolist(), strict=True)]
