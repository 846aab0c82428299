# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Batched answers: order, batching, the base alone, and when an answer is finished."""

import copy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from eval.generation import (
    ANSWER_MARGIN,
    Answer,
    answer_batch,
    answer_budget,
    generate_answers,
    sort_into_batches,
)
from modeling_mora import MoraForCausalLM, MoraProcessor

# Of very different lengths, so that sorting by length changes the order.
MOLECULES = ["CCO", "CC(=O)Oc1ccccc1C(=O)O", "C", None, "c1ccccc1"]
PROMPTS = [f"What is the gap of {molecule}?" for molecule in MOLECULES]


@pytest.fixture(scope="module")
def model(make_model: Callable[..., MoraForCausalLM]) -> MoraForCausalLM:
    return make_model().eval()


def texts(model: MoraForCausalLM, processor: MoraProcessor, **kwargs: object) -> list[str]:
    settings = {"prompts": PROMPTS, "molecules": MOLECULES, "max_new_tokens": 6} | kwargs
    return [answer.text for answer in generate_answers(model, processor, **settings)]


def test_answers_come_in_row_order_whatever_the_batch_size(
    model: MoraForCausalLM, processor: MoraProcessor
):
    one_by_one = [
        texts(model, processor, prompts=[prompt], molecules=[molecule])[0]
        for prompt, molecule in zip(PROMPTS, MOLECULES, strict=True)
    ]
    assert len(set(one_by_one)) > 1
    assert texts(model, processor, batch_size=2) == one_by_one
    assert texts(model, processor, batch_size=8) == one_by_one


def test_without_adapter_the_base_answers(
    model: MoraForCausalLM, processor: MoraProcessor, tiny_base: Path
):
    alone = [
        answer.text
        for answer in answer_batch(model, processor, PROMPTS, MOLECULES, 6, use_adapter=False)
    ]
    base = AutoModelForCausalLM.from_pretrained(tiny_base).eval()
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": PROMPTS[0]}],
        tokenize=True,
        add_generation_prompt=True,
        return_tensors="pt",
    )
    tokens = base.generate(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        max_new_tokens=6,
        do_sample=False,
    )[0, inputs["input_ids"].shape[1] :]
    assert alone[0] == processor.tokenizer.decode(tokens, skip_special_tokens=True).strip()
    assert alone != texts(model, processor)


def test_longest_prompts_come_first_and_every_row_once(processor: MoraProcessor):
    assert sort_into_batches(processor, PROMPTS, 2) == [[1, 4], [3, 0], [2]]


def test_probability_of_two_answers_is_that_of_the_forward_pass(
    model: MoraForCausalLM, processor: MoraProcessor
):
    answers = answer_batch(model, processor, PROMPTS, MOLECULES, 1, choices=("Yes", "No"))
    first_bytes = processor.tokenizer("YN")["input_ids"]
    for prompt, molecule, answer in zip(PROMPTS, MOLECULES, answers, strict=True):
        content = [{"type": "text", "text": prompt}]
        content += [{"type": "molecule", "molecule": molecule}] if molecule else []
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": content}],
            tokenize=True,
            return_dict=True,
            add_generation_prompt=True,
            return_tensors="pt",
        )
        with torch.no_grad():
            logits = model(**inputs).logits[0, -1, first_bytes]
        expected = logits.softmax(dim=0)[0].item()
        assert answer.probability == pytest.approx(expected, abs=1e-5)
    probabilities = [answer.probability for answer in answers]
    assert len(set(probabilities)) == len(probabilities)


def test_choices_that_begin_alike_are_refused(model: MoraForCausalLM, processor: MoraProcessor):
    with pytest.raises(ValueError, match="'Yes' and 'Yeah' begin with the same token"):
        answer_batch(model, processor, ["?"], ["C"], 1, choices=("Yes", "Yeah"))


class Scripted:
    """Stands for a model that writes the same tokens behind every prompt."""

    device = torch.device("cpu")

    def __init__(self, model: MoraForCausalLM, tokens: list[int]):
        self.generation_config = model.generation_config
        self.tokens = torch.tensor([tokens])

    def generate(self, input_ids: torch.Tensor, **kwargs: object) -> SimpleNamespace:
        self.kwargs = kwargs
        sequences = torch.cat([input_ids, self.tokens.expand(len(input_ids), -1)], dim=1)
        return SimpleNamespace(sequences=sequences)


def test_an_answer_is_finished_when_the_model_ended_it(
    model: MoraForCausalLM, processor: MoraProcessor
):
    number = processor.tokenizer(" 0.25")["input_ids"]
    end = processor.tokenizer.eos_token_id
    for tokens, finished in ((number, False), ([*number, end], True)):
        scripted = Scripted(model, tokens)
        (answer,) = generate_answers(scripted, processor, ["?"], ["C"], max_new_tokens=5)
        assert answer == Answer("0.25", finished)
        assert scripted.kwargs["do_sample"] is False
        assert scripted.kwargs["num_beams"] == 1
        assert scripted.kwargs["repetition_penalty"] == 1.0


def test_the_token_that_closes_the_chat_turn_ends_an_answer(
    model: MoraForCausalLM, processor: MoraProcessor
):
    end_of_turn = processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    end_of_text = processor.tokenizer.convert_tokens_to_ids("<|endoftext|>")
    processor = copy.deepcopy(processor)
    processor.tokenizer.eos_token = "<|endoftext|>"
    scripted = Scripted(model, [end_of_turn])
    scripted.generation_config = GenerationConfig(eos_token_id=None)
    (answer,) = generate_answers(scripted, processor, ["?"], ["C"], max_new_tokens=5)
    assert answer.finished
    assert scripted.kwargs["eos_token_id"] == sorted([end_of_turn, end_of_text])


def test_budget_is_the_longest_answer_and_a_margin(processor: MoraProcessor):
    assert answer_budget(processor, ["0.1", "-0.1234", "0.1"]) == len("-0.1234") + ANSWER_MARGIN


def test_lengths_that_differ_are_named(model: MoraForCausalLM, processor: MoraProcessor):
    with pytest.raises(ValueError, match="5 prompts but 1 molecules"):
        texts(model, processor, molecules=["C"])


def test_no_prompts_give_no_answers(model: MoraForCausalLM, processor: MoraProcessor):
    assert texts(model, processor, prompts=[], molecules=[]) == []
