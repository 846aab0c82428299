# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Small tokenizers of many LLM families, each with the chat format of its family.

The tokenizer classes are those of transformers, with their own normalisers, pre-tokenisers and
decoders; only the vocabularies are small, and trained here. The chat templates are written after
the published formats.
"""

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import (
    AddedToken,
    AutoTokenizer,
    GemmaTokenizer,
    GPT2Tokenizer,
    LlamaTokenizer,
    PreTrainedTokenizerBase,
    Qwen2Tokenizer,
    T5Tokenizer,
    XGLMTokenizer,
)

from modeling_mora.base_models_mora import WHEEL_BASES, cache_dir

# The lines with a break are seams of prompt and answer, so that tokens across them are learnt.
LINES = [
    "What is the gap of CCO in Hartree? Answer with a number.",
    "The molecule is a secondary alcohol, a primary amine and an ether.",
    "user assistant system model INST User: Assistant: You are a helpful assistant.",
    "-0.2471 0.2471 -0.24610 1e-3 C[C@H](N)C(=O)O [Na+].[Cl-] F/C=C/F [C][C][O][=Branch1]",
    "\n\n",
    "\n-0",
    "\nC[C@H]",
    "]C[C@H]",
    ">\n\n\n",
    ":-0.2471",
    ":C(=O)",
]
SPECIAL = {"<pad>", "<unk>", "<s>", "</s>", "<bos>", "<eos>", "<mask>"}


@dataclass(frozen=True)
class Family:
    """A tokenizer, its chat format and what that cannot carry.

    Attributes:
        make: returns the tokenizer.
        end: the token that ends the assistant's turn.
        template: the chat template; empty for the tokenizer's own.
        bos: how often the BOS token is in a question and its answer; more than once where it has
            other uses, such as ending a turn.
        left_out: what the template writes between generation prompt and answer, and between the
            answer and the end of the turn, which is not trained.
        refused: names of `ANSWERS` that cannot be learnt -> the error.
    """

    make: Callable[[], PreTrainedTokenizerBase]
    end: str
    template: str = ""
    bos: int = 1
    left_out: tuple[str, str] = ("", "")
    refused: dict[str, str] = field(default_factory=dict)


@functools.cache
def byte_level_bpe() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of a byte-level BPE."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(LINES * 2, bpe_trainer(initial_alphabet=sorted(alphabet)))
    return read_bpe(tokenizer, [])


@functools.cache
def sentencepiece_bpe() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of a BPE with blanks as "▁", and bytes for unknown characters."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.train_from_iterator(LINES * 2, bpe_trainer(initial_alphabet=["▁"]))
    return read_bpe(tokenizer, [*sorted(SPECIAL), *(f"<0x{byte:02X}>" for byte in range(256))])


def bpe_trainer(**kwargs: object) -> trainers.BpeTrainer:
    return trainers.BpeTrainer(vocab_size=450, max_token_length=5, show_progress=False, **kwargs)


def read_bpe(
    tokenizer: Tokenizer, first: list[str]
) -> tuple[dict[str, int], list[tuple[str, str]]]:
    model = json.loads(tokenizer.to_str())["model"]
    tokens = [*first, *(token for token in model["vocab"] if token not in first)]
    return {token: i for i, token in enumerate(tokens)}, [tuple(pair) for pair in model["merges"]]


@functools.cache
def unigram(*special: str) -> list[tuple[str, float]]:
    """Pieces of a Unigram model that knows all of ASCII, and their scores."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=300,
        special_tokens=list(special),
        unk_token="<unk>",
        initial_alphabet=[chr(i) for i in range(33, 127)] + ["\n", "é", "α", "°"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(LINES, trainer)
    return [tuple(piece) for piece in json.loads(tokenizer.to_str())["model"]["vocab"]]


def with_special(
    tokenizer: PreTrainedTokenizerBase, *special: str, rstrip: bool = False
) -> PreTrainedTokenizerBase:
    tokens = [AddedToken(t, special=True, normalized=False, rstrip=rstrip) for t in special]
    tokenizer.add_tokens(tokens, special_tokens=True)
    return tokenizer


def gpt2(end: str, bos: str | None = None, *special: str) -> PreTrainedTokenizerBase:
    vocab, merges = byte_level_bpe()
    tokenizer = GPT2Tokenizer(
        vocab, merges, unk_token=end, bos_token=bos or end, eos_token=end, add_bos_token=bool(bos)
    )
    return with_special(tokenizer, *special)


def qwen(*thoughts: str) -> PreTrainedTokenizerBase:
    vocab, merges = byte_level_bpe()
    tokenizer = Qwen2Tokenizer(vocab, merges, eos_token="<|im_end|>")
    tokenizer.add_tokens([AddedToken(token, special=False) for token in thoughts])
    return with_special(tokenizer, "<|im_start|>", "<|im_end|>")


def llama(*special: str, rstrip: bool = False, **kwargs: object) -> PreTrainedTokenizerBase:
    vocab, merges = sentencepiece_bpe()
    tokenizer = LlamaTokenizer(vocab, merges, **({"add_bos_token": True} | kwargs))
    return with_special(tokenizer, *special, rstrip=rstrip)


def phi3() -> PreTrainedTokenizerBase:
    """Its special tokens swallow the blanks and breaks behind them."""
    special = ("<|user|>", "<|assistant|>", "<|end|>")
    return llama(*special, rstrip=True, eos_token="<|endoftext|>", add_bos_token=False)


def zephyr() -> PreTrainedTokenizerBase:
    """The older kind of Llama tokenizer, which writes "▁" before every text."""
    tokenizer = llama()
    backend = tokenizer.backend_tokenizer
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    backend.pre_tokenizer = None
    return tokenizer


def gemma() -> PreTrainedTokenizerBase:
    vocab, merges = sentencepiece_bpe()
    tokenizer = GemmaTokenizer(vocab, merges, add_bos_token=True)
    return with_special(tokenizer, "<start_of_turn>", "<end_of_turn>")


# Both Unigram kinds are set to clean up what they decode, as older tokenizer files ask for.
def xglm() -> PreTrainedTokenizerBase:
    vocab = unigram("<s>", "<pad>", "</s>", "<unk>")
    return XGLMTokenizer(vocab, clean_up_tokenization_spaces=True)


def t5() -> PreTrainedTokenizerBase:
    vocab = unigram("<pad>", "</s>", "<unk>")
    return T5Tokenizer(vocab, extra_ids=0, clean_up_tokenization_spaces=True)


def converted(name: str) -> PreTrainedTokenizerBase:
    """A real tokenizer, where its base model has been converted before."""
    checkpoint = cache_dir() / WHEEL_BASES[name].folder
    if not checkpoint.is_dir():
        pytest.skip(f"{name} has not been converted here")
    return AutoTokenizer.from_pretrained(checkpoint)


LLAMA3 = """\
{{- bos_token }}{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + \
'<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}{% endfor %}\
{% if add_generation_prompt %}\
{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"""
LLAMA2 = """\
{% for message in messages %}{% if message['role'] == 'user' %}\
{{ bos_token + '[INST] ' + message['content'].strip() + ' [/INST]' }}\
{% else %}{{ ' ' + message['content'].strip() + ' ' + eos_token }}{% endif %}{% endfor %}"""
MISTRAL = """\
{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}\
{{ '[INST] ' + message['content'] + '[/INST]' }}\
{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}{% endfor %}"""
CHATML = """\
{% for message in messages %}{% if loop.first and message['role'] != 'system' %}\
{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}\
{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""
MARKED_CHATML = """\
{% for message in messages %}{% if message['role'] == 'assistant' %}{{ '<|im_start|>assistant\n' }}\
{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}\
{% else %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}\
{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""
QWEN3 = """\
{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}\
{% if message['role'] == 'assistant' %}{% if loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}\
{{ message['content'].split('</think>')[-1].lstrip('\n') }}\
{% else %}{{ message['content'] }}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}\
{% if enable_thinking is defined and enable_thinking is false %}\
{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"""
QWEN3_NO_THOUGHTS = "{% set enable_thinking = false %}" + QWEN3
GEMMA = """\
{{ bos_token }}{% for message in messages %}\
{{ '<start_of_turn>' + message['role'].replace('assistant', 'model') + '\n' + \
message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"""
PHI3 = """\
{% for message in messages %}\
{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"""
ZEPHYR = """\
{% for message in messages %}\
{{ '<|' + message['role'] + '|>\n' + message['content'] + eos_token }}\
{% if loop.last and add_generation_prompt %}{{ '\n<|assistant|>' }}{% endif %}{{ '\n' }}\
{% endfor %}"""
OLMO2 = """\
{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}\
{{ '<|user|>\n' + message['content'] + '\n' }}{% else %}\
{{ '<|assistant|>\n' + message['content'] + eos_token }}\
{% if not loop.last %}{{ '\n' }}{% endif %}{% endif %}\
{% if loop.last and add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}{% endfor %}"""
GRANITE = """\
{% for message in messages %}{{ '<|start_of_role|>' + message['role'] + '<|end_of_role|>' + \
message['content'] + '<|end_of_text|>\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|start_of_role|>assistant<|end_of_role|>' }}{% endif %}"""
DEEPSEEK = """\
{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}\
{{ '<｜User｜>' + message['content'] }}{% else %}\
{{ '<｜Assistant｜>' + message['content'].split('</think>')[-1] + eos_token }}\
{% endif %}{% endfor %}"""
DEEPSEEK_CHAT = DEEPSEEK + "{% if add_generation_prompt %}{{ '<｜Assistant｜>' }}{% endif %}"
DEEPSEEK_R1 = DEEPSEEK + "{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\n' }}{% endif %}"
PLAIN = """\
{% for message in messages %}{% if message['role'] == 'user' %}\
{{ 'User: ' + message['content'] + '\n' }}{% else %}\
{{ 'Assistant: ' + message['content'] + eos_token }}{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"""
BOS_PLAIN = "{{ bos_token }}" + PLAIN

DEEPSEEK_TOKENS = (
    "<｜end▁of▁sentence｜>",
    "<｜begin▁of▁sentence｜>",
    "<｜User｜>",
    "<｜Assistant｜>",
)
NO_THOUGHTS = "<think>\n\n</think>\n\n"
TRIMS = {
    name: "changes the answer" for name in ("leading blank", "trailing blank", "leading break")
}
# "▁x" is both "x" and " x" to them.
NO_LEADING_BLANK = {"leading blank": "reads the answer"}
NFC = {"decomposed": "reads the answer"}
UNKNOWN = {name: "reads the answer" for name in ("unicode", "decomposed")}
ONE_BLANK = {"inner blanks": "reads the answer"}
NO_BREAKS = {
    name: "reads the answer"
    for name in ("inner break", "leading break", "inner blanks", "leading blank", "trailing blank")
}
NO_THOUGHT = {"thought": "changes the answer"}

FAMILIES = {
    "llama3": Family(
        lambda: gpt2("<|eot_id|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>"),
        "<|eot_id|>",
        LLAMA3,
        refused=TRIMS,
    ),
    "llama2": Family(llama, "</s>", LLAMA2, left_out=(" ", " "), refused=TRIMS),
    "mistral": Family(
        lambda: llama("[INST]", "[/INST]"),
        "</s>",
        MISTRAL,
        left_out=(" ", ""),
        refused=NO_LEADING_BLANK,
    ),
    "zephyr": Family(zephyr, "</s>", ZEPHYR, bos=0),
    "phi3": Family(phi3, "<|end|>", PHI3, bos=0, refused=NO_LEADING_BLANK),
    "gemma": Family(gemma, "<end_of_turn>", GEMMA, refused=TRIMS),
    "qwen2": Family(qwen, "<|im_end|>", CHATML, bos=0, refused=NFC),
    "marked chatml": Family(qwen, "<|im_end|>", MARKED_CHATML, bos=0, refused=NFC),
    "qwen3": Family(
        lambda: qwen("<think>", "</think>"),
        "<|im_end|>",
        QWEN3,
        bos=0,
        left_out=(NO_THOUGHTS, ""),
        refused=NFC | NO_THOUGHT | {"leading break": "changes the answer"},
    ),
    "qwen3 without thoughts": Family(
        lambda: qwen("<think>", "</think>"),
        "<|im_end|>",
        QWEN3_NO_THOUGHTS,
        bos=0,
        refused=NFC | NO_THOUGHT | {"leading break": "changes the answer"},
    ),
    "olmo2": Family(lambda: gpt2("<|endoftext|>"), "<|endoftext|>", OLMO2, bos=2),
    "granite": Family(
        lambda: gpt2("<|end_of_text|>", None, "<|start_of_role|>", "<|end_of_role|>"),
        "<|end_of_text|>",
        GRANITE,
        bos=2,
    ),
    "deepseek": Family(
        lambda: gpt2(*DEEPSEEK_TOKENS),
        DEEPSEEK_TOKENS[0],
        DEEPSEEK_CHAT,
        refused=NO_THOUGHT,
    ),
    "deepseek-r1": Family(
        lambda: gpt2(*DEEPSEEK_TOKENS),
        DEEPSEEK_TOKENS[0],
        DEEPSEEK_R1,
        # Its generation prompt opens thoughts, which the template drops again from the turn.
        left_out=("<think>\n", ""),
        refused=NO_THOUGHT,
    ),
    "gpt2": Family(lambda: gpt2("<|endoftext|>"), "<|endoftext|>", PLAIN, left_out=(" ", "")),
    "xglm": Family(
        xglm,
        "</s>",
        BOS_PLAIN,
        left_out=(" ", ""),
        refused=NO_LEADING_BLANK | UNKNOWN | ONE_BLANK,
    ),
    "t5": Family(
        t5,
        "</s>",
        PLAIN,
        bos=0,
        left_out=(" ", ""),
        refused=NO_BREAKS | UNKNOWN,
    ),
    "real smollm2": Family(lambda: converted("smollm2"), "<|im_end|>", bos=3),
    "real gemma3": Family(lambda: converted("gemma3-270m"), "<end_of_turn>", GEMMA, refused=TRIMS),
}


@functools.cache
def make_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a family, with its chat template."""
    family = FAMILIES[name]
    tokenizer = family.make()
    if family.template:
        tokenizer.chat_template = family.template
    return tokenizer
