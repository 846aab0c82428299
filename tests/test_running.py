# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Every way of running a model gives what the plain way gives."""

import copy
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from conftest import gradients, text_of
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    TextIteratorStreamer,
    Trainer,
    TrainingArguments,
)

from modeling_mora import MoraForCausalLM

TEXTS = [f"Question {'x' * i}?" for i in range(4)]
ROWS = ["CCO", None, "c1ccccc1O", "[Na+].[Cl-]"]


@pytest.fixture
def model(make_model) -> MoraForCausalLM:
    return make_model()


@pytest.fixture
def inputs(processor) -> dict:
    return processor(text=TEXTS, molecules=ROWS, return_tensors="pt", padding=True)


def clone_of(model: MoraForCausalLM, tmp_path, **kwargs) -> MoraForCausalLM:
    model.save_pretrained(tmp_path / "mora")
    return MoraForCausalLM.from_pretrained(tmp_path / "mora", **kwargs)


@torch.no_grad()
def test_eager_and_sdpa_agree(model, inputs, tmp_path):
    logits = {}
    for implementation in ("eager", "sdpa"):
        loaded = clone_of(model, tmp_path, attn_implementation=implementation)
        assert loaded.language_model.config._attn_implementation == implementation
        logits[implementation] = loaded(**inputs).logits[:, -1]
    torch.testing.assert_close(logits["eager"], logits["sdpa"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logits["sdpa"], model(**inputs).logits[:, -1])


@torch.no_grad()
def test_bfloat16_base(model, inputs, tiny_base, tmp_path):
    """Close to float32, and without a molecule the bfloat16 base bit by bit."""
    half = clone_of(model, tmp_path, dtype=torch.bfloat16)
    found, expected = half(**inputs).logits, model(**inputs).logits
    assert found.dtype == torch.bfloat16
    assert (found - expected)[:, -1].abs().max() < 0.05 * expected.abs().max()
    base = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.bfloat16)
    assert torch.equal(found[1], base(**text_of(inputs)).logits[1])
    weights = half.encode_molecules(**{k: v for k, v in inputs.items() if "graph" in k})
    assert weights.dtype == torch.float32


@pytest.mark.parametrize("save_base", [False, True])
def test_bfloat16_base_is_loaded_as_saved(tiny_base, inputs, tmp_path, save_base):
    model = MoraForCausalLM.from_base(tiny_base, dtype=torch.bfloat16, rank=4)
    model.save_pretrained(tmp_path / "mora", save_base=save_base)
    loaded = MoraForCausalLM.from_pretrained(tmp_path / "mora")
    assert model.dtype == loaded.dtype == torch.bfloat16
    assert {p.dtype for p in loaded.language_model.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in loaded.tuner.parameters()} == {torch.float32}
    assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)


def test_trained_on_float16_loaded_in_float32(tiny_base, tmp_path):
    """float16 has no comparable fingerprint; the right base must not be refused for it."""
    model = MoraForCausalLM.from_base(tiny_base, dtype=torch.float16, rank=4)
    model.save_pretrained(tmp_path)
    loaded = MoraForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert loaded.config.base_fingerprint is None and loaded.dtype == torch.float32


@torch.no_grad()
def test_threads_do_not_mix_molecules(model, processor):
    """As in a server: one model, another molecule in every thread."""
    requests = [
        processor(text=["Gap?"], molecules=[molecule], return_tensors="pt")
        for molecule in ("CCO", "c1ccccc1", "C#N", "OCC(O)CO")
    ]
    expected = [model(**request).logits for request in requests]

    def ask(number: int) -> bool:
        with torch.no_grad():
            return torch.equal(model(**requests[number]).logits, expected[number])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(ask, [0, 1, 2, 3] * 25))
    assert model.tuner.state.weights is None


def test_data_parallel_is_a_clear_error(model, inputs):
    model._is_replica = True  # as torch.nn.DataParallel marks its copies
    with pytest.raises(RuntimeError, match=r"DataParallel.*torchrun"):
        model(**inputs)


def test_base_in_a_subfolder_is_a_clear_error(tiny_base):
    with pytest.raises(ValueError, match="subfolder='x'"):
        MoraForCausalLM.from_base(tiny_base, subfolder="x")


def test_layers_that_hold_buffers_only(model, inputs):
    """As some quantisations have them: the hooks must find a device all the same."""
    expected = model(**inputs).logits
    for module in model.language_model.modules():
        if hasattr(module, "in_features"):
            weight = module._parameters.pop("weight")
            module.register_buffer("weight", weight.detach())
    model.tuner.attach(model.language_model)
    assert torch.equal(model(**inputs).logits, expected)


@torch.no_grad()
def test_autocast(model, inputs, tiny_base):
    """The weights are still generated in float32; a text-only row is the base under autocast."""
    graph = {name: t for name, t in inputs.items() if name.startswith("graph_")}
    expected, weights = model(**inputs).logits, model.encode_molecules(**graph)
    base = AutoModelForCausalLM.from_pretrained(tiny_base)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(model.encode_molecules(**graph), weights)
        found = model(**inputs).logits
        assert torch.equal(found[1], base(**text_of(inputs)).logits[1])
    assert (found - expected)[:, -1].abs().max() < 0.05 * expected.abs().max()


@torch.no_grad()
@pytest.mark.parametrize("save_base", [False, True])
def test_device_map_auto(model, inputs, tmp_path, save_base):
    model.save_pretrained(tmp_path / "mora", save_base=save_base)
    loaded = MoraForCausalLM.from_pretrained(tmp_path / "mora", device_map="auto")
    assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)


def device_map(model: MoraForCausalLM, **places: str) -> dict[str, str]:
    """The whole model on the CPU, but for the modules given by their last names."""
    names = [f"language_model.model.{name}" for name in ("embed_tokens", "norm", "rotary_emb")]
    names += [f"language_model.model.layers.{i}" for i in range(3)]
    names += ["language_model.lm_head", "graph_encoder", "weight_generator", "tuner"]
    return {name: places.get(name.rsplit(".", 1)[-1], "cpu") for name in names}


@torch.no_grad()
def test_offloaded_base(model, inputs, tmp_path):
    """Two layers on the disk; merging cannot work then, and says so."""
    places = device_map(model, **{"1": "disk", "2": "disk"})
    loaded = clone_of(model, tmp_path, device_map=places, offload_folder=tmp_path / "offload")
    assert loaded.language_model.model.layers[1].mlp.up_proj.weight.is_meta
    assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)
    with pytest.raises(ValueError, match="offloaded"), loaded.merged("CCO"):
        pass


def test_offloaded_adapter_is_a_clear_error(model, tmp_path):
    places = device_map(model, weight_generator="disk")
    with pytest.raises(ValueError, match="device_map offloads a part of the adapter"):
        clone_of(model, tmp_path, device_map=places, offload_folder=tmp_path / "offload")


@torch.no_grad()
def test_compiled_forward(model, inputs):
    """The whole forward pass is one graph, with generated and with given weights."""
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(
        compiled(**inputs).logits, model(**inputs).logits, atol=1e-5, rtol=1e-5
    )
    others = {**inputs, "graph_atoms": inputs["graph_atoms"].roll(2, 0)}
    others |= {"graph_atom_mask": inputs["graph_atom_mask"].roll(2, 0)}
    torch.testing.assert_close(
        compiled(**others).logits, model(**others).logits, atol=1e-5, rtol=1e-5
    )
    assert model.tuner.state.weights is None


def test_compiled_training_step(model, inputs):
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    expected = gradients(model, inputs)
    model.zero_grad()
    compiled(**inputs, labels=inputs["input_ids"], use_cache=False).loss.backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(
                parameter.grad, expected[name], atol=1e-5, rtol=1e-4, msg=name
            )


@torch.no_grad()
def test_compiled_decoding(model, inputs):
    """`generate` with a static cache over a compiled forward, all of it without a graph break."""
    settings = {"max_new_tokens": 6, "do_sample": False, "cache_implementation": "static"}
    expected = model.generate(**inputs, **settings)
    model.forward = torch.compile(model.forward, fullgraph=True, backend="aot_eager")
    assert torch.equal(model.generate(**inputs, **settings), expected)


@pytest.mark.parametrize(
    "decoding",
    [
        {"do_sample": False},
        {"do_sample": True, "num_return_sequences": 3},
        {"num_beams": 3, "num_return_sequences": 2},
        {"do_sample": False, "cache_implementation": "static"},
        {"do_sample": False, "use_cache": False},
    ],
    ids=lambda decoding: "-".join(decoding),
)
@torch.no_grad()
def test_every_sequence_keeps_its_molecule(model, inputs, decoding):
    """The probabilities that `generate` reports are those of a plain forward pass."""
    torch.manual_seed(0)
    out = model.generate(
        **inputs, **decoding, max_new_tokens=5, output_scores=True, output_logits=True,
        return_dict_in_generate=True, eos_token_id=None, top_k=0,
    )  # fmt: skip
    repeats = decoding.get("num_return_sequences", 1)
    graph = {name: t for name, t in inputs.items() if name.startswith("graph_")}
    weights = model.encode_molecules(**graph).repeat_interleave(repeats, dim=0)
    mask = inputs["attention_mask"].repeat_interleave(repeats, dim=0)
    mask = torch.cat([mask, torch.ones(len(mask), 5, dtype=mask.dtype)], dim=1)
    logits = model(out.sequences, attention_mask=mask, mora_weights=weights).logits[:, -6:-1]
    expected = logits.log_softmax(-1).gather(-1, out.sequences[:, -5:, None])[..., 0]
    found = model.compute_transition_scores(
        out.sequences, out.scores, getattr(out, "beam_indices", None), normalize_logits=False
    )
    if "num_beams" not in decoding:
        found = model.compute_transition_scores(out.sequences, out.logits, normalize_logits=True)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("molecule", ["CCO", None])
def test_prompt_lookup_equals_greedy_search(model, processor, molecule):
    one = processor(text=["ab ab ab ab"], molecules=[molecule], return_tensors="pt")
    settings = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None}
    expected = model.generate(**one, **settings)
    assert torch.equal(model.generate(**one, **settings, prompt_lookup_num_tokens=3), expected)


@torch.no_grad()
@pytest.mark.parametrize("decoding", [{}, {"num_beams": 2, "num_return_sequences": 2}], ids=str)
def test_many_questions_about_one_molecule(model, processor, decoding):
    """Weights encoded once, for a whole batch of questions."""
    weights = model.encode_molecules(**processor.feature_extractor("CCO", return_tensors="pt"))
    questions = processor(text=TEXTS, return_tensors="pt", padding=True)
    settings = {"max_new_tokens": 5, "do_sample": False, **decoding}
    expected = model.generate(
        **processor(text=TEXTS, molecules=["CCO"] * 4, return_tensors="pt", padding=True),
        **settings,
    )
    assert torch.equal(model.generate(**questions, mora_weights=weights, **settings), expected)
    ids = questions.pop("input_ids")
    assert torch.equal(model.generate(ids, **questions, mora_weights=weights, **settings), expected)
    assert not torch.equal(model.generate(ids, **questions, **settings), expected)


@torch.no_grad()
def test_assistant_model_equals_greedy_search(model, processor, tiny_base):
    one = processor(text=["ab ab"], molecules=["CCO"], return_tensors="pt")
    settings = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None}
    assistant = AutoModelForCausalLM.from_pretrained(tiny_base)
    found = model.generate(**one, **settings, assistant_model=assistant)
    assert torch.equal(found, model.generate(**one, **settings))


def test_wrong_number_of_molecules_is_a_clear_error(model, processor, inputs):
    two = processor.feature_extractor(["CCO", "C"], return_tensors="pt")
    with pytest.raises(ValueError, match="2 molecules were given for 4 rows"):
        model.generate(**{**inputs, **two}, max_new_tokens=2)


def test_streamer(model, processor):
    one = processor(text=["ab"], molecules=["CCO"], return_tensors="pt")
    settings = {"max_new_tokens": 8, "do_sample": False}
    streamer = TextIteratorStreamer(processor.tokenizer, skip_prompt=True)
    out = model.generate(**one, **settings, streamer=streamer)
    answer = processor.tokenizer.decode(out[0, one["input_ids"].shape[1] :])
    assert "".join(streamer) == answer


def adapter_after_training(
    make_model: Callable, rows: list[dict], collate: Callable, path, **settings: object
) -> dict[str, torch.Tensor]:
    model = make_model()
    arguments = TrainingArguments(
        output_dir=str(path), max_steps=3, learning_rate=1e-2, report_to="none", save_strategy="no",
        use_cpu=True, disable_tqdm=True, remove_unused_columns=False, max_grad_norm=0.0,
        optim="sgd", lr_scheduler_type="constant", **settings,
    )  # fmt: skip
    Trainer(model=model, args=arguments, train_dataset=rows, data_collator=collate).train()
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def test_accumulated_and_checkpointed_training_equals_plain_training(
    make_model, processor, tmp_path
):
    """Micro-batches of text alone between others, with both modes of checkpointing."""
    molecules = ["CCO", "c1ccccc1", None, None, "C", None, "CC(=O)O", "N#N"]
    rows = [{"text": f"Row {'y' * i}", "molecule": m} for i, m in enumerate(molecules)]

    def collate(batch: list[dict]) -> dict:
        data = processor(
            text=[row["text"] for row in batch],
            molecules=[row["molecule"] for row in batch],
            return_tensors="pt",
            padding=True,
        )
        # No loss on a row's first token: what comes before it is padding, or nothing.
        answered = data["attention_mask"].cumsum(-1) > 1
        labels = data["input_ids"].masked_fill(~answered, -100)
        return {**data, "labels": labels}

    expected = adapter_after_training(
        make_model, rows, collate, tmp_path, per_device_train_batch_size=8
    )
    start = {n: p for n, p in make_model().named_parameters() if p.requires_grad}
    assert any((start[name] - tensor).abs().max() > 1e-4 for name, tensor in expected.items())
    for use_reentrant in (True, False):
        found = adapter_after_training(
            make_model, rows, collate, tmp_path, per_device_train_batch_size=2,
            gradient_accumulation_steps=4, gradient_checkpointing=True,
            gradient_checkpointing_kwargs={"use_reentrant": use_reentrant},
        )  # fmt: skip
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize(
    "duplicate",
    [
        copy.copy,
        copy.deepcopy,
        lambda config: pickle.loads(pickle.dumps(config)),
    ],
)
def test_copies_of_the_configuration(make_model, duplicate):
    config = make_model(core_dim=8).config
    clone = duplicate(config)
    assert clone.to_dict() == config.to_dict()
    assert type(clone.text_config) is type(config.text_config)
    clone.rank = 3
    assert config.rank == 4
    torch.testing.assert_close(MoraForCausalLM(config).config.core_dim, 8)


@torch.no_grad()
@pytest.mark.parametrize("size", [300, 200])
@pytest.mark.parametrize("save_base", [False, True])
def test_resized_vocabulary(model, inputs, tmp_path, size, save_base):
    """Other tokens keep their logits; the checkpoint holds the embeddings."""
    inputs = {**inputs, "input_ids": inputs["input_ids"].clamp(max=size - 1)}
    expected = model(**inputs).logits
    model.resize_token_embeddings(size)
    assert model.config.text_config.vocab_size == size
    assert not any(p.requires_grad for p in model.language_model.parameters())
    found = model(**inputs, labels=inputs["input_ids"])
    assert found.logits.shape[-1] == size and found.loss.isfinite()
    common = min(size, expected.shape[-1])
    torch.testing.assert_close(found.logits[..., :common], expected[..., :common])
    model.save_pretrained(tmp_path / "mora", save_base=save_base)
    loaded = MoraForCausalLM.from_pretrained(tmp_path / "mora")
    assert torch.equal(loaded(**inputs).logits, found.logits)
    loaded.save_pretrained(tmp_path / "again", save_base=save_base)
    again = MoraForCausalLM.from_pretrained(tmp_path / "again")
    assert torch.equal(again(**inputs).logits, found.logits)


@torch.no_grad()
def test_resized_vocabulary_of_a_tied_base(tiny_base, inputs, tmp_path):
    """The output head is the embedding: one tensor, saved once."""
    config = AutoConfig.from_pretrained(tiny_base, tie_word_embeddings=True)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "base")
    model = MoraForCausalLM.from_base(tmp_path / "base", rank=4)
    model.resize_token_embeddings(300)
    model.save_pretrained(tmp_path / "mora")
    loaded = MoraForCausalLM.from_pretrained(tmp_path / "mora")
    assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)
    embeddings = loaded.get_input_embeddings().weight
    assert loaded.get_output_embeddings().weight.data_ptr() == embeddings.data_ptr()


@torch.no_grad()
def test_frozen_batch_norm_is_the_same_in_train_mode(make_model, inputs):
    model = make_model(
        freeze_graph_encoder=True,
        graph_config={"hidden_size": 32, "num_layers": 2, "form": "moleculestm"},
    )
    expected = model.eval()(**inputs).logits
    torch.testing.assert_close(model.train()(**inputs).logits, expected, atol=1e-5, rtol=1e-5)
    assert not model.graph_encoder.training and model.weight_generator.training
    assert torch.equal(model.eval()(**inputs).logits, expected)


@torch.no_grad()
def test_second_lora_on_top(model, inputs, tiny_base, tmp_path):
    """PEFT's LoRA on adapted and other modules, against the same LoRA merged into the base."""
    lora_config = LoraConfig(target_modules=["q_proj", "o_proj"], init_lora_weights=False)
    adapter = {n: t.clone() for n, t in model.state_dict().items() if "language_model" not in n}
    molecule_alone = model(**inputs).logits
    torch.manual_seed(2)
    both = get_peft_model(model, lora_config)
    found = both(**inputs).logits

    base = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_base), lora_config)
    tensors = {
        name.replace("language_model.", "", 1): tensor
        for name, tensor in both.state_dict().items()
        if "lora_" in name
    }
    assert not base.load_state_dict(tensors, strict=False).unexpected_keys
    base.merge_and_unload().save_pretrained(tmp_path / "base")
    merged = MoraForCausalLM.from_base(
        tmp_path / "base", **{n: getattr(model.config, n) for n in (
            "rank", "target_modules", "generator_dim", "generator_heads", "graph_config"
        )},
    )  # fmt: skip
    merged.load_state_dict(adapter, strict=False)
    torch.testing.assert_close(found, merged(**inputs).logits, atol=1e-5, rtol=1e-5)
    assert (found - molecule_alone).abs().max() > 1e-2
    with both.disable_adapter():
        torch.testing.assert_close(both(**inputs).logits, molecule_alone)
    tokens = both.generate(**inputs, max_new_tokens=4, do_sample=False)
    assert torch.equal(tokens, merged.generate(**inputs, max_new_tokens=4, do_sample=False))
