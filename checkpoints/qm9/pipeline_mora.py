# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""`transformers.pipeline` for MoRA: molecules and questions in, answers out."""

import copy
import inspect
import itertools
from collections.abc import Iterator, Sized
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch.utils.data import Dataset
from transformers import Pipeline
from transformers.utils.chat_template_utils import Chat

from .chat_mora import end_token_ids, read_answer
from .median_mora import MedianNumber, NumberTokens
from .tasks_mora import TASKS

# Greedy, so that a question has one answer. Some base models ship sampling, or a repetition
# penalty, which would punish repeated digits.
DEFAULTS = {"max_new_tokens": 256, "do_sample": False, "num_beams": 1, "repetition_penalty": 1.0}


class MoraPipeline(Pipeline):
    """Ask a MoRA model about molecules.

    It is what `transformers.pipeline` makes of a MoRA checkpoint; around a model in memory it is
    made by hand.

    Args:
        model: a `MoraForCausalLM`.
        processor: its `MoraProcessor`.
        kwargs: those of `transformers.Pipeline`, and settings of `generate` as defaults of calls.

    Example:

        >>> pipe = pipeline(model="user/mora", trust_remote_code=True)
        >>> pipe({"molecule": "CCO", "text": "Is it soluble in water?"})
        [{'generated_text': 'Yes.'}]
        >>> pipe({"molecule": "CCO"}, task="property_prediction", property="gap")
        [{'generated_text': '0.3280', 'value': 0.328}]
    """

    _load_processor = True
    _load_tokenizer = False
    _load_feature_extractor = False
    _load_image_processor = False
    _load_video_processor = False

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        """Answer one row, or many.

        Args:
            inputs: a row, a list or other sequence of rows such as a `datasets.Dataset`, one of its
                columns or a pandas Series, a generator of rows, or a `KeyDataset`. A row is one of

                - `{"molecule": "CCO", "text": "…"}`: the text is the user's turn, in the chat
                  template if the tokenizer has one; without a molecule the base model answers
                - `{"molecule": "CCO", "task": "property_prediction", "property": "gap"}`: the
                  task of `tasks_mora` words the question, with the molecule as canonical SMILES
                - a chat, as `MoraProcessor.apply_chat_template` takes it
                - a molecule alone, where the call names the task

                A molecule is a SMILES, SELFIES, InChI or RDKit `Mol`.
            task: task of the rows that have neither a text nor a task of their own.
            property, phrasing, …: arguments of the task's `question`, for the same rows.
            batch_size: rows per batch, 1 if not given. Answers do not depend on it.
            numbers: `"median"` makes rows of the task property_prediction answer with the median of
                the numbers that the model might write, which often has a smaller absolute error,
                for properties whose values all have as many digits before the point (see
                [`MedianNumber`]); `"greedy"`, the default, with about the most frequent one.
            return_full_text: return the question or chat with the answer. That is the default for
                chats only, as in the text-generation pipeline.
            kwargs: settings of `generate`, `max_new_tokens`, `num_return_sequences` or `streamer`
                for instance; greedy with at most 256 new tokens if not given.

        Returns:
            For each row a list of `num_return_sequences` dicts `{"generated_text": …}`; the row of
            a task has a `"value"` too, what the task reads in the answer, or None for an answer
            that it cannot read or that is cut off. A generator or dataset gives an iterator.

        Raises:
            ValueError: a row cannot be asked. The message names the row and the fix; of a list, all
                rows are checked before anything is generated.
            MoleculeError: likewise, for a molecule that cannot be read.
        """
        if isinstance(inputs, Sized) and not isinstance(inputs, (str, dict, Dataset, Chat)):
            inputs = list(inputs)
        if isinstance(inputs, list) and not inputs:
            return []
        if isinstance(inputs, list):
            inputs = _mark_chats(inputs)
        return super().__call__(inputs, **kwargs)

    def save_pretrained(self, save_directory: str, **kwargs: Any) -> None:
        """Save the model and its processor; `kwargs` go to the model's `save_pretrained`."""
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory)

    def _sanitize_parameters(
        self,
        return_full_text: bool | None = None,
        task: str | None = None,
        numbers: str | None = None,
        **kwargs: Any,
    ) -> tuple[dict, dict, dict]:
        """Sort the arguments of a call into those of `preprocess`, `_forward` and `postprocess`."""
        if numbers not in (None, "greedy", "median"):
            raise ValueError(f'numbers={numbers!r} is unknown: use "greedy" or "median".')
        preprocess = {name: kwargs.pop(name) for name in _all_task_options() & kwargs.keys()}
        if task is not None:
            self.processor.task(task)
            preprocess["task"] = task
        postprocess = {} if return_full_text is None else {"return_full_text": return_full_text}
        forward = kwargs if numbers is None else kwargs | {"numbers": numbers}
        return preprocess, forward, postprocess

    def get_iterator(
        self, inputs: Any, num_workers: int, batch_size: int, preprocess_params: dict, *args: Any
    ) -> Iterator:
        """Answer many rows, each with its number for error messages."""
        if isinstance(inputs, Sized):
            rows = _NumberedDataset(inputs)
        else:
            rows = itertools.starmap(_NumberedRow, enumerate(inputs))
        if isinstance(inputs, list):
            for row in rows:
                self.preprocess(row, **preprocess_params)
        return super().get_iterator(rows, num_workers, batch_size, preprocess_params, *args)

    def preprocess(self, input_: Any, task: str | None = None, **options: Any) -> dict[str, dict]:
        """Write one row's prompt and read its molecule.

        Args:
            input_: a row, or a `_NumberedRow`.
            task: task of a row that names none and has no text.
            options: arguments of its `question`.

        Returns:
            `{"row": …}`: transformers makes a list of these for a batch, which `_forward` pads.
        """
        number, row = input_ if isinstance(input_, _NumberedRow) else (None, input_)
        # A chat from a dataset is a plain list, from elsewhere transformers' own `Chat`.
        messages = getattr(row, "messages", row if isinstance(row, list) else None)
        if messages is None:
            text, molecule, task = self._question(row, number, task, options)
            messages = [{"role": "user", "content": text}]
        else:
            _check_chat(messages, number)
            text, molecule, task = messages, self.processor.molecule_of(messages, number), None
        return {
            "row": {
                "text": text,
                "task": task,
                "prompt": self._prompt(messages, number),
                "graph": self.processor.feature_extractor.featurize(molecule, row=number),
            }
        }

    def _question(
        self, row: Any, number: int | None, task: str | None, options: dict
    ) -> tuple[str, Any, tuple[str, str | None] | None]:
        """Text and molecule of a row that is no chat, and its task with what that asks for."""
        if not isinstance(row, dict):
            if task is None:
                raise _row_error(
                    number,
                    f'{row!r} is no question: write {{"molecule": "CCO", "text": "…"}}, or name a '
                    "task=… for a molecule alone. Rows of a data set come as a list, a generator "
                    "or a KeyDataset.",
                )
            row = {"molecule": row}
        unknown = row.keys() - {"molecule", "text", "task"} - _all_task_options()
        if unknown:
            raise _row_error(
                number,
                f"the key {min(map(repr, unknown))} is unknown: use molecule, text, task, "
                f"{', '.join(sorted(_all_task_options()))}.",
            )
        given = {name: value for name, value in row.items() if value is not None}
        molecule, text = given.pop("molecule", None), given.pop("text", None)
        if text is not None:
            if given:
                raise _row_error(
                    number,
                    f"text={text!r} and {next(iter(given))}={next(iter(given.values()))!r} are "
                    "both given: a task words its own question, so give one of them.",
                )
            if not isinstance(text, str):
                raise _row_error(number, f"text={text!r} is no string: give the question's text.")
            return text, molecule, None
        task = given.pop("task", task)
        return self._task_question(molecule, number, task, options | given)

    def _task_question(
        self, molecule: Any, number: int | None, name: str | None, options: dict
    ) -> tuple[str, str, tuple[str, str | None]]:
        """The question about a molecule in the words of the task, its graph, and what is asked."""
        if name is None:
            raise _row_error(
                number,
                "neither text nor task is given: add text=… or a task, one of "
                f"{', '.join(sorted(TASKS))}.",
            )
        if molecule is None:
            raise _row_error(number, f"the task {name!r} needs a molecule: add molecule=…")
        extractor = self.processor.feature_extractor
        try:
            task = self.processor.task(name)
        except ValueError as error:
            raise _row_error(number, f"task {name!r}: {error}") from error
        smiles = task.read(molecule, extractor.molecule_format, number)
        try:
            # For its message, which says what is missing and not how question() is called.
            inspect.signature(task.question).bind(smiles, **options)
            question = task.question(smiles, **options)
            asked = options.get("property", options.get("label"))
            return question, task.graph(smiles), (name, asked)
        except (TypeError, ValueError) as error:
            raise _row_error(number, f"task {name!r}: {error}") from error

    def _prompt(self, messages: list[dict], number: int | None) -> str:
        if self.tokenizer.chat_template is not None:
            # As in the text-generation pipeline, a begun answer is continued.
            begun = messages[-1]["role"] == "assistant"
            return self.processor.apply_chat_template(
                messages, add_generation_prompt=not begun, continue_final_message=begun
            )
        if len(messages) == 1 and isinstance(messages[0]["content"], str):
            return messages[0]["content"]
        raise _row_error(
            number, "the tokenizer has no chat template for a chat: ask with text=… instead."
        )

    def _forward(
        self, model_inputs: dict[str, Any], numbers: str = "greedy", **generate_kwargs: Any
    ) -> dict[str, Any]:
        """Generate answers of B rows, each R times.

        Returns:
            `sequences` [B, R, T] new tokens, `finished` [B, R] whether the model ended the answer
            itself, and `row` as given.
        """
        rows = model_inputs["row"]
        rows = rows if isinstance(rows, list) else [rows]
        # A chat template holds the special tokens already; a second BOS would be an error.
        inputs = self.processor(
            text=[row["prompt"] for row in rows],
            return_tensors="pt",
            padding=True,
            add_special_tokens=self.tokenizer.chat_template is None,
        )
        graphs = [row["graph"] for row in rows]
        inputs.update(self.processor.feature_extractor.pad(graphs, return_tensors="pt"))

        settings, end_ids = self._generation_settings(generate_kwargs)
        asks_number = [(row["task"] or [None])[0] == "property_prediction" for row in rows]
        if numbers == "median" and any(asks_number):
            median = MedianNumber(self._number_tokens, asks_number)
            settings["logits_processor"] = [*(settings.get("logits_processor") or ()), median]
        output = self.model.generate(**inputs.to(self.device), **settings)
        sequences = getattr(output, "sequences", output)[:, inputs["input_ids"].shape[1] :]
        end_ids = torch.tensor([] if end_ids is None else end_ids, device=sequences.device)
        finished = torch.isin(sequences, end_ids).any(dim=1)
        return {
            "sequences": sequences.unflatten(0, (len(rows), -1)),
            "finished": finished.unflatten(0, (len(rows), -1)),
            "row": model_inputs["row"],
        }

    @cached_property
    def _number_tokens(self) -> NumberTokens:
        return NumberTokens.of(self.tokenizer)

    def _generation_settings(self, given: dict[str, Any]) -> tuple[dict[str, Any], Any]:
        """The given settings of `generate`, filled up with the pipeline's; and the end tokens."""
        settings = {
            "eos_token_id": end_token_ids(self.model, self.tokenizer),
            "pad_token_id": self.tokenizer.pad_token_id,
        }
        # For stop_strings, which generate() looks up in it.
        given = {"tokenizer": self.tokenizer} | given
        config = copy.deepcopy(given.get("generation_config"))
        if config is not None:
            # Put into it, because generate() wants a generation_config or settings, not both.
            for name, value in settings.items():
                if getattr(config, name) is None:
                    setattr(config, name, value)
            end_ids = given.get("eos_token_id", config.eos_token_id)
            return given | {"generation_config": config}, end_ids
        settings = DEFAULTS | settings | given
        if "max_length" in given and "max_new_tokens" not in given:
            del settings["max_new_tokens"]
        return settings, settings["eos_token_id"]

    def postprocess(
        self, model_outputs: dict[str, Any], return_full_text: bool | None = None
    ) -> list[dict[str, Any]]:
        """Read the answers of one row; returns a dict for each of its return sequences."""
        row = model_outputs["row"]
        records = []
        for tokens, finished in zip(
            model_outputs["sequences"][0], model_outputs["finished"][0].tolist(), strict=True
        ):
            answer = read_answer(self.tokenizer, tokens)
            record = {"generated_text": _with_question(row["text"], answer, return_full_text)}
            if row["task"] is not None:
                # An answer that was cut off may end in the middle of a number.
                name, asked = row["task"]
                record["value"] = (
                    self.processor.task(name).parse(answer, asked) if finished else None
                )
            records.append(record)
        return records


class _NumberedRow(NamedTuple):
    """A row and its position in the caller's list, for error messages."""

    number: int
    row: Any


class _NumberedDataset(Dataset):
    """The rows of a list or dataset, each with its number."""

    def __init__(self, rows: Any):
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> _NumberedRow:
        return _NumberedRow(number, self.rows[number])


def _all_task_options() -> set[str]:
    """Names of what a task's `question` takes besides the molecule."""
    questions = (inspect.signature(task.question) for task in TASKS.values())
    return {name for question in questions for name in question.parameters} - {"molecule"}


def _mark_chats(inputs: list) -> Chat | list:
    """Chats as `Chat`, among other rows too; transformers does so for all rows or for none."""
    if _is_chat(inputs):
        _check_chat(inputs, None)
        return Chat(inputs)
    rows = []
    for number, row in enumerate(inputs):
        if _is_chat(row):
            _check_chat(row, number)
            row = Chat(row)
        rows.append(row)
    return rows


def _is_chat(row: Any) -> bool:
    return isinstance(row, (list, tuple)) and any(
        isinstance(part, dict) and part.keys() & {"role", "content"} for part in row
    )


def _check_chat(messages: list, number: int | None) -> None:
    for message in messages:
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            raise _row_error(
                number,
                f"{message!r} is no message of a chat: a row that is a list holds "
                '{"role": "user", "content": …}.',
            )


def _row_error(number: int | None, message: str) -> ValueError:
    return ValueError(f"{'This row' if number is None else f'Row {number}'}: {message}")


def _with_question(
    question: str | list[dict], answer: str, return_full_text: bool | None
) -> str | list[dict]:
    """The answer, alone or behind its question; a chat comes back whole unless told otherwise."""
    is_chat = isinstance(question, list)
    if not (is_chat if return_full_text is None else return_full_text):
        return answer
    if not is_chat:
        return question + answer
    last = question[-1]
    if last["role"] != "assistant":
        return [*question, {"role": "assistant", "content": answer}]
    begun = last["content"]
    more = answer if isinstance(begun, str) else [{"type": "text", "text": answer}]
    return [*question[:-1], {**last, "content": begun + more}]


__all__ = ["MoraPipeline"]
