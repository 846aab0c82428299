# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""What carries loss, for many families of tokenizers and chat formats."""

from types import SimpleNamespace

import pytest
import torch
from tokenizer_families import FAMILIES, Family, make_tokenizer
from transformers import GenerationConfig, PreTrainedTokenizerBase

from eval.generation import generate_answers
from modeling_mora import MoleculeFeatureExtractor, MoraPipeline, MoraProcessor
from modeling_mora.chat_mora import end_token_ids
from training.collator import MoraCollator
from training.tokenization import ExampleTooLongError, tokenize_example

PROMPT = "What is the gap of CCO in Hartree?"
ANSWERS = {
    "number": "-0.2471",
    "exponent": "1e-3",
    "stereo": "C[C@H](N)C(=O)O.[Na+].[Cl-]",
    "bonds": "F/C=C\\F",
    "selfies": "[C][C@@H1][Branch1][C][O][=O]",
    "caption": "The molecule, a (2S)-amine, isn't 'chiral' ; it melts at 5.1 , not 6 !",
    "inner break": "CCO\nCCN\n\nC",
    "inner blanks": "a  b   c",
    "leading blank": " CCO",
    "trailing blank": "CCO ",
    "leading break": "\n\nCCO",
    "merging": "C[C@H]",
    "unicode": "Tc: 25 °C, α-D-glucose, 水, 🧪",
    "decomposed": "e\u0301ther",
    "thought": "a</think>b",
    "one letter": "e",
    "bracket": "]",
}


@pytest.fixture(params=FAMILIES)
def name(request) -> str:
    make_tokenizer(request.param)  # skips where a real one is not there
    return request.param


@pytest.fixture
def family(name) -> Family:
    return FAMILIES[name]


@pytest.fixture
def tokenizer(name) -> PreTrainedTokenizerBase:
    return make_tokenizer(name)


@pytest.fixture
def processor(tokenizer) -> MoraProcessor:
    return MoraProcessor(MoleculeFeatureExtractor(), tokenizer)


@pytest.fixture
def answers(family) -> list[str]:
    return [answer for name, answer in ANSWERS.items() if name not in family.refused]


def labels_of(example: dict[str, list[int]]) -> list[int]:
    return [label for label in example["labels"] if label != -100]


def generation_prompt(processor: MoraProcessor) -> list[int]:
    content = [{"type": "molecule", "molecule": "CCO"}, {"type": "text", "text": PROMPT}]
    return processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True
    )["input_ids"][0]


def test_prompt_is_what_generation_starts_from_and_carries_no_loss(processor, answers):
    prompt = generation_prompt(processor)
    for answer in answers:
        example = tokenize_example(PROMPT, answer, processor.tokenizer, 512)
        labels = labels_of(example)
        assert example["input_ids"] == prompt + labels
        assert example["labels"] == [-100] * len(prompt) + labels


def test_labels_are_the_answer_and_the_end_of_turn(tokenizer, family, answers):
    end = tokenizer.convert_tokens_to_ids(family.end)
    for answer in answers:
        labels = labels_of(tokenize_example(PROMPT, answer, tokenizer, 512))
        assert labels[-1] == end
        assert end not in labels[:-1]
        assert tokenizer.decode(labels[:-1], clean_up_tokenization_spaces=False) == answer


def test_generation_stops_at_the_end_of_turn(tokenizer, family):
    for configured in (None, 0, [0, 1]):
        model = SimpleNamespace(generation_config=GenerationConfig(eos_token_id=configured))
        assert tokenizer.convert_tokens_to_ids(family.end) in end_token_ids(model, tokenizer)


def test_one_bos(tokenizer, family):
    input_ids = tokenize_example(PROMPT, "0", tokenizer, 512)["input_ids"]
    assert input_ids.count(tokenizer.bos_token_id) == family.bos


def test_text_is_what_the_template_writes(tokenizer, family, answers):
    """But for what the family leaves out between prompt, answer and end of turn."""
    before, behind = family.left_out
    user_turn = {"role": "user", "content": PROMPT}
    start = tokenizer.apply_chat_template([user_turn], add_generation_prompt=True, tokenize=False)
    # A prompt that opens thoughts itself: the template drops them from a finished turn.
    start = start.removesuffix(before) if start.endswith(before) else start + before
    for answer in answers:
        turns = [user_turn, {"role": "assistant", "content": answer}]
        written = tokenizer.apply_chat_template(turns, tokenize=False)
        assert written.startswith(start + answer + behind + family.end)


def test_some_answers_would_merge_with_the_prompt():
    """Else the test of the prompts could not fail."""
    merging = set()
    for name in FAMILIES.keys() - {"real smollm2", "real gemma3"}:
        tokenizer = make_tokenizer(name)
        user_turn = [{"role": "user", "content": PROMPT}]
        settings = {"add_generation_prompt": True, "tokenize": False}
        start = tokenizer.apply_chat_template(user_turn, **settings)
        prompt = tokenizer(start, add_special_tokens=False)["input_ids"]
        for answer in ANSWERS.values():
            together = tokenizer(start + answer, add_special_tokens=False)["input_ids"]
            if together[: len(prompt)] != prompt:
                merging.add(name)
    assert {"llama2", "zephyr", "gemma", "qwen2", "qwen3", "olmo2"} <= merging


def test_refused_answers(name, tokenizer, family):
    assert family.refused.keys() <= ANSWERS.keys()
    for refused, message in family.refused.items():
        with pytest.raises(ValueError, match=message):
            tokenize_example(PROMPT, ANSWERS[refused], tokenizer, 512)
    for special in {family.end, *tokenizer.all_special_tokens}:
        with pytest.raises(ValueError, match="text of a special token"):
            tokenize_example(PROMPT, f"CCO{special}N", tokenizer, 512)
    for empty in ("", " ", "\n"):
        with pytest.raises(ValueError, match="is empty"):
            tokenize_example(PROMPT, empty, tokenizer, 512)


def test_too_long_examples_are_not_cut(tokenizer):
    length = len(tokenize_example(PROMPT, "-0.2471", tokenizer, 512)["input_ids"])
    assert len(tokenize_example(PROMPT, "-0.2471", tokenizer, length)["input_ids"]) == length
    with pytest.raises(ExampleTooLongError, match=f"max_length={length - 1}, .* {length} tokens"):
        tokenize_example(PROMPT, "-0.2471", tokenizer, length - 1)


def test_left_padding_keeps_the_labels(processor, answers):
    examples = [tokenize_example(PROMPT, answer, processor.tokenizer, 512) for answer in answers]
    batch = MoraCollator(processor)([example | {"molecule": "CCO"} for example in examples])
    columns = (batch[key] for key in ("input_ids", "attention_mask", "labels"))
    for example, input_ids, mask, labels in zip(examples, *columns, strict=True):
        assert input_ids[mask.bool()].tolist() == example["input_ids"]
        assert mask.tolist() == sorted(mask.tolist())
        assert labels[labels != -100].tolist() == labels_of(example)
        assert labels[-1] == example["labels"][-1] != -100


class Scripted:
    """Stands for a model that writes the labels of an example, then padding."""

    device = torch.device("cpu")
    generation_config = GenerationConfig()

    def __init__(self, tokens: list[int]):
        self.tokens = torch.tensor([tokens])

    def generate(
        self, input_ids: torch.Tensor, return_dict_in_generate: bool = False, **kwargs: object
    ) -> torch.Tensor | SimpleNamespace:
        self.prompt = input_ids[0].tolist()
        padding = torch.full((1, 3), kwargs["pad_token_id"])
        tokens = torch.cat([input_ids, self.tokens, padding], dim=1)
        return SimpleNamespace(sequences=tokens) if return_dict_in_generate else tokens


class ScriptedPipeline(MoraPipeline):
    def __init__(self, model: Scripted, processor: MoraProcessor):
        self.model, self.processor, self.tokenizer = model, processor, processor.tokenizer
        self.device = model.device

    def ask(self, row: dict[str, str]) -> dict:
        output = self._forward(self.preprocess(row))
        assert output["finished"].tolist() == [[True]]
        return self.postprocess(output)[0]


def test_what_was_learnt_is_read_back(processor, answers):
    for answer in answers:
        example = tokenize_example(PROMPT, answer, processor.tokenizer, 512)
        model = Scripted(labels_of(example))
        (read,) = generate_answers(model, processor, [PROMPT], ["CCO"], max_new_tokens=99)
        assert (read.text, read.finished) == (answer.strip(), True)
        assert model.prompt + labels_of(example) == example["input_ids"]

        model = Scripted(labels_of(example))
        row = {"molecule": "CCO", "text": PROMPT}
        assert ScriptedPipeline(model, processor).ask(row) == {"generated_text": answer}
        assert model.prompt + labels_of(example) == example["input_ids"]
