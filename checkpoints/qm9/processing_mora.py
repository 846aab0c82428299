# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Questions and molecules in, everything `MoraForCausalLM` takes out."""

from collections.abc import Iterable
from typing import Any

from transformers import BatchFeature
from transformers.processing_utils import ProcessorMixin

from .tasks_mora import Task, get_task


class MoraProcessor(ProcessorMixin):
    """A molecule feature extractor and a tokenizer in one.

    The molecule becomes a graph beside the text and takes no token in it; whether the question
    also spells the molecule out is up to its author.

    Args:
        feature_extractor: a `MoleculeFeatureExtractor`.
        tokenizer: the base model's tokenizer. It is set to pad on the left, as generation needs,
            and to pad with its end-of-sequence token if it has no padding token.
        chat_template: replaces the tokenizer's own.
        tasks: what the model was trained to be asked: settings of [`get_task`] by task name, such
            as `{"property_prediction": {"properties": …}}`. They are saved with the processor.
    """

    def __init__(self, feature_extractor=None, tokenizer=None, chat_template=None, tasks=None):
        # First, because `chat_template` lives on the tokenizer.
        self.tokenizer = tokenizer
        if chat_template is None:
            chat_template = getattr(tokenizer, "chat_template", None)
        super().__init__(feature_extractor, tokenizer, chat_template=chat_template)
        self.tasks = dict(tasks or {})
        tokenizer.padding_side = "left"
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token

    def task(self, name: str) -> Task:
        """The task of that name, as the model was trained to be asked it.

        Raises:
            ValueError: there is none; the message lists those there are.
        """
        return get_task(name, **self.tasks.get(name, {}))

    @property
    def chat_template(self) -> str | dict[str, str] | None:
        """The tokenizer's chat template; setting it sets the tokenizer's."""
        return self.tokenizer.chat_template

    @chat_template.setter
    def chat_template(self, chat_template: str | dict[str, str] | None) -> None:
        self.tokenizer.chat_template = chat_template

    def __call__(
        self,
        text: str | list[str] | None = None,
        molecules: Any = None,
        return_tensors: str | None = None,
        padding: bool | str = True,
        **kwargs: Any,
    ) -> BatchFeature:
        """Tokenise texts, and featurise the molecule of each.

        Args:
            text: one text, or a list of B.
            molecules: one molecule, or a list of B, aligned with `text`; each a SMILES, SELFIES,
                InChI, RDKit `Mol`, or None for a text without a molecule.
            return_tensors: `"pt"` or `"np"`.
            padding: as for a tokenizer.
            kwargs: passed to the tokenizer.

        Returns:
            `input_ids` and `attention_mask` [B, T] if there is a text, and the tensors of
            `MoleculeFeatureExtractor.pad` if there are molecules. One text gives a batch of one.

        Raises:
            ValueError: neither is given, or not one molecule for each text.
            MoleculeError: a molecule cannot become a graph; the message names its row.
        """
        if text is None and molecules is None:
            raise ValueError("Neither text nor molecules are given: pass at least one of them.")
        data = {}
        if text is not None:
            text = [text] if isinstance(text, str) else list(text)
            data.update(self.tokenizer(text, padding=padding, **kwargs))
        if molecules is not None:
            graphs = self.feature_extractor(molecules)
            rows = len(graphs["graph_atoms"])
            if text is not None and rows != len(text):
                raise ValueError(
                    f"{len(text)} texts but {rows} molecules: pass one molecule for each text, and "
                    "None for a text without one."
                )
            data.update(graphs)
        return BatchFeature(data, tensor_type=return_tensors)

    def apply_chat_template(
        self,
        conversation: list[dict] | list[list[dict]],
        tokenize: bool = False,
        return_dict: bool = True,
        return_tensors: str | None = None,
        padding: bool | str = True,
        **kwargs: Any,
    ) -> str | list[str] | list[list[int]] | BatchFeature:
        """Write conversations as prompts, and take their molecules out as graphs.

        The content of a message is a string, or a list of `{"type": "text", "text": "…"}` and
        `{"type": "molecule", "molecule": "CCO"}`. Text entries are joined as they are. All
        molecules of a conversation, such as the reactants of a reaction, become the components of
        its one graph.

        Args:
            conversation: a list of messages, or a list of B such lists.
            tokenize: return tokens instead of text.
            return_dict: with `tokenize`, return the graphs too, not the token ids alone.
            return_tensors: `"pt"` or `"np"`, with `tokenize`.
            padding: as for a tokenizer, with `tokenize`.
            kwargs: passed to the tokenizer's `apply_chat_template`, `add_generation_prompt` and
                `max_length` for instance; names it does not know reach the template.

        Returns:
            The prompt, or a list of B prompts. With `tokenize`, what `__call__` returns, always
            as a batch; a conversation without a molecule is a row without a molecule.

        Raises:
            ValueError: no messages, or a content entry of an unknown type or without its value.
            MoleculeError: a molecule cannot become a graph; the message names its conversation.
        """
        if not conversation:
            raise ValueError("The conversation is empty: pass at least one message.")
        single = not isinstance(conversation[0], (list, tuple))
        conversations = [conversation] if single else conversation
        texts = [[_text_message(message) for message in messages] for messages in conversations]
        if not tokenize:
            prompts = self.tokenizer.apply_chat_template(texts, tokenize=False, **kwargs)
            return prompts[0] if single else prompts

        # Tokenised by the tokenizer itself, which knows that a template writes its own BOS.
        data = self.tokenizer.apply_chat_template(
            texts, tokenize=True, return_dict=True, padding=padding, **kwargs
        )
        graphs = self.feature_extractor(
            [self.molecule_of(messages, row) for row, messages in enumerate(conversations)]
        )
        batch = BatchFeature({**data, **graphs}, tensor_type=return_tensors)
        return batch if return_dict else batch["input_ids"]

    def molecule_of(self, messages: list[dict], row: int | None = None) -> Any:
        """The molecule of a conversation: of several, one `Mol` of components; None without any.

        Args:
            messages: see `apply_chat_template`.
            row: position in the caller's list, for error messages.
        """
        molecules = [
            entry["molecule"]
            for message in messages
            for entry in _entries(message)
            if entry["type"] == "molecule" and entry["molecule"] is not None
        ]
        if len(molecules) > 1:
            return self.feature_extractor.combine(molecules, row)
        return molecules[0] if molecules else None


def _text_message(message: dict) -> dict:
    """Return the message with its text entries joined to one string, as most templates need."""
    if not isinstance(message.get("content"), (list, tuple)):
        return message
    text = "".join(entry["text"] for entry in _entries(message) if entry["type"] == "text")
    return {**message, "content": text}


def _entries(message: dict) -> Iterable[dict]:
    """Yield the checked entries of a message's content; none if it is a plain string."""
    content = message.get("content")
    if not isinstance(content, (list, tuple)):
        return
    for entry in content:
        kind = entry.get("type") if isinstance(entry, dict) else None
        if kind not in ("text", "molecule") or kind not in entry:
            raise ValueError(
                f"The {message.get('role')} message holds the entry {entry!r}: write "
                '{"type": "text", "text": "…"} or {"type": "molecule", "molecule": "CCO"}.'
            )
        yield entry
