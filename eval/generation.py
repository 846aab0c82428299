# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Loading what was trained, and batched greedy answers of it or of its base alone."""

import contextlib
from collections.abc import Sequence
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
    PreTrainedTokenizerBase,
    ProcessorMixin,
)
from transformers.utils import find_adapter_config_file

from eval.text_only import TextOnlyModel
from modeling_mora.chat_mora import end_token_ids, read_answer
from modeling_mora.checkpoint_mora import base_fingerprint, load_base_config
from modeling_mora.median_mora import MedianNumber, NumberTokens

DTYPES = ("auto", "float32", "bfloat16", "float16")
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
        probability: of the first of two answers against the second, where two were asked for.
    """

    text: str
    finished: bool
    probability: float | None = None


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


def load_model(name_or_path: str, dtype: str = "auto") -> PreTrainedModel | TextOnlyModel:
    """Load a checkpoint (folder or Hub id) of any method for inference.

    Where this package's `modeling_mora` is imported, transformers prefers its classes to the code
    that the checkpoint carries. The model goes to the GPU when there is one.

    Args:
        name_or_path: the checkpoint.
        dtype: number format of the LLM, such as `bfloat16`; `auto` is that of its files. What MoRA
            and the graph prefix add stays float32.

    Returns:
        A model that takes text and graphs, and is its base inside `disable_adapter()`. Its `config`
        says which base that is.

    Raises:
        OSError: the checkpoint or its base is missing.
        ValueError: it is a checkpoint of something else.
    """
    method = method_of(name_or_path)
    if method == "lora":
        model = TextOnlyModel(_load_lora(name_or_path, dtype))
    else:
        model = AutoModelForCausalLM.from_pretrained(
            name_or_path, dtype=dtype, trust_remote_code=True
        )
        if method == "full_finetune":
            model = TextOnlyModel(model)
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def _load_lora(name_or_path: str, dtype: str) -> PeftModel:
    """The adapter on its base, whose configuration then says which base it is."""
    adapter = PeftConfig.from_pretrained(name_or_path)
    name, revision = adapter.base_model_name_or_path, adapter.revision
    load_base_config(name, revision)
    base = AutoModelForCausalLM.from_pretrained(name, revision=revision or "main", dtype=dtype)
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
    numbers: str = "greedy",
) -> list[Answer]:
    """Answer every prompt, with a progress bar, and return the answers in row order.

    Args:
        model: what [`load_model`] returns.
        processor: its processor.
        prompts: texts of the user turn.
        molecules: molecules aligned with `prompts`; None for a row without one.
        max_new_tokens: longest answer, see [`answer_budget`].
        batch_size: rows per batch.
        use_adapter: False asks the base model alone, on the same loaded weights.
        description: label of the progress bar.
        numbers: `median` for prompts that ask for a number, see [`MedianNumber`].

    Raises:
        ValueError: if `prompts` and `molecules` differ in length.
    """
    if len(prompts) != len(molecules):
        raise ValueError(
            f"{len(prompts)} prompts but {len(molecules)} molecules: pass one molecule per prompt, "
            "None for a prompt without one"
        )
    number_tokens = NumberTokens.of(processor.tokenizer) if numbers == "median" else None
    answers: dict[int, Answer] = {}
    with tqdm(total=len(prompts), desc=description, unit="row") as progress:
        for rows in sort_into_batches(processor, prompts, batch_size):
            batch = answer_batch(
                model,
                processor,
                [prompts[row] for row in rows],
                [molecules[row] for row in rows],
                max_new_tokens,
                use_adapter,
                number_tokens=number_tokens,
            )
            answers.update(zip(rows, batch, strict=True))
            progress.update(len(rows))
    return [answers[row] for row in range(len(prompts))]


def sort_into_batches(
    processor: ProcessorMixin, prompts: Sequence[str], batch_size: int
) -> list[list[int]]:
    """Row numbers, batch by batch.

    Prompts of similar length share a batch, the longest come first: little padding, and a batch
    that does not fit into memory fails at once and not at the end.
    """
    if not prompts:
        return []
    lengths = [len(ids) for ids in processor.tokenizer(list(prompts))["input_ids"]]
    order = sorted(range(len(prompts)), key=lambda row: lengths[row], reverse=True)
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


@torch.inference_mode()
def answer_batch(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    prompts: Sequence[str],
    molecules: Sequence[str | None],
    max_new_tokens: int,
    use_adapter: bool = True,
    choices: tuple[str, str] | None = None,
    number_tokens: NumberTokens | None = None,
) -> list[Answer]:
    """Answer the prompts of one batch, greedily.

    Args:
        model: what [`load_model`] returns.
        processor: its processor.
        prompts: texts of the user turn.
        molecules: molecules aligned with `prompts`; None for a row without one.
        max_new_tokens: longest answer, see [`answer_budget`].
        use_adapter: False asks the base model alone, on the same loaded weights.
        choices: two answers, such as `("Yes", "No")`, for `Answer.probability`: their first tokens
            are compared before anything is written, whatever the model then writes.
        number_tokens: given, the first number of an answer is the median of what the model might
            write, not the greedy one.

    Raises:
        ValueError: both choices begin with the same token.
    """
    tokenizer = processor.tokenizer
    first_tokens = None if choices is None else first_token_ids(tokenizer, choices)
    inputs = processor.apply_chat_template(
        [_conversation(*row) for row in zip(prompts, molecules, strict=True)],
        tokenize=True,
        return_dict=True,
        add_generation_prompt=True,
        padding=True,
        return_tensors="pt",
    ).to(model.device)
    end_ids = end_token_ids(model, tokenizer)
    median = None
    if number_tokens is not None:
        median = [MedianNumber(number_tokens, [True] * len(prompts))]
    with contextlib.nullcontext() if use_adapter else model.disable_adapter():
        generated = model.generate(
            **inputs,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            # Some base models ship a repetition penalty, which would punish repeated digits.
            repetition_penalty=1.0,
            eos_token_id=end_ids,
            pad_token_id=tokenizer.pad_token_id,
            return_dict_in_generate=True,
            output_logits=choices is not None,
            logits_processor=median,
        )
    tokens = generated.sequences[:, inputs["input_ids"].shape[1] :]
    finished = torch.isin(tokens, torch.tensor(end_ids, device=tokens.device)).any(dim=1).tolist()
    texts = [read_answer(tokenizer, row).strip() for row in tokens]
    probabilities = [None] * len(texts)
    if first_tokens is not None:
        logits = generated.logits[0][:, first_tokens].float()
        probabilities = logits.softmax(dim=1)[:, 0].tolist()
    return [Answer(*answer) for answer in zip(texts, finished, probabilities, strict=True)]


def first_token_ids(tokenizer: PreTrainedTokenizerBase, choices: tuple[str, str]) -> list[int]:
    """The first token of each of two answers, as training wrote them.

    Raises:
        ValueError: it is the same one.
    """
    ids = [tokenizer(choice, add_special_tokens=False)["input_ids"][0] for choice in choices]
    if ids[0] == ids[1]:
        raise ValueError(
            f"{choices[0]!r} and {choices[1]!r} begin with the same token of this tokenizer, so "
            "their probabilities cannot be told from the first step"
        )
    return ids


def _conversation(prompt: str, molecule: str | None) -> list[dict]:
    content = [{"type": "text", "text": prompt}]
    if molecule is not None:
        content.insert(0, {"type": "molecule", "molecule": molecule})
    return [{"role": "user", "content": content}]
