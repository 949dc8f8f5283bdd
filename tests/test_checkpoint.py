"""The Hugging Face directory: what is written is what is read, and nothing else is accepted silently."""

import errno
import json
import os

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import minillama
from minillama import Config, Model
from minillama.checkpoint import ARCHITECTURES
from minillama.checkpoint.huggingface import config_from_json, config_to_json, model_type
from minillama.config import BIASES
from minillama.files import replacing, write_text
from minillama.gradcheck import relative_error
from minillama.tokenizers import CharTokenizer
from tests.test_switches import ALONE, make

SHAPE = dict(vocab_size=9, dim=16, layers=2, heads=4, kv_heads=2, ffn=24, context=8)


def saved(folder, dtype=np.float32, **changes):
    model = Model(Config(**{**SHAPE, **changes}), seed=3, dtype=dtype, threads=1)
    minillama.save(model, folder, CharTokenizer.train("abcdefghi"))
    return model


@pytest.mark.parametrize("layout", ["rotate_half", "interleaved"])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_loaded_model_computes_the_same(tmp_path, layout, tied, dtype, rng):
    model = saved(tmp_path, dtype, rope_layout=layout, tied=tied, rope_theta=500.0, norm_eps=1e-3)
    loaded, tokenizer = minillama.load(tmp_path)
    ids = rng.integers(0, 9, (2, 8))
    logits = loaded.logits(ids)
    assert logits.dtype == dtype and loaded.config.rope_layout == "rotate_half"
    np.testing.assert_allclose(logits, model.logits(ids), rtol=1e-4 if dtype == np.float32 else 1e-12)
    assert tokenizer.decode(tokenizer.encode("bad")) == "bad"
    if layout == "rotate_half":
        np.testing.assert_array_equal(loaded.parameters.flat, model.parameters.flat)
        assert loaded.config == model.config


def test_names_and_shapes_are_hugging_faces(tmp_path):
    saved(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    assert tensors["model.layers.1.self_attn.k_proj.weight"].shape == (8, 16)
    assert tensors["model.layers.0.mlp.down_proj.weight"].shape == (16, 24)
    assert {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"} < tensors.keys() and len(tensors) == 21


def test_a_model_without_a_tokenizer(tmp_path):
    minillama.save(Model(Config(**SHAPE), threads=1), tmp_path)
    assert minillama.load(tmp_path)[1] is None


@pytest.mark.parametrize(
    "change, words",
    [
        ({"n_heads": 4}, "unknown key 'n_heads'"),
        ({"num_hidden_layer": 4}, "did you mean 'num_hidden_layers'"),
        ({"rms_norm_eps": None}, "norm_eps must be a finite number; received None"),
        ({"rms_norm_eps": "1e-5"}, "norm_eps must be a finite number; received '1e-5'"),
        ({"rope_theta": "10000"}, "rope_theta must be a finite number"),
        ({"tie_word_embeddings": "false"}, "tied must be True or False; received 'false'"),
        ({"model_type": "mamba"}, "model_type = 'mamba'; minillama opens llama, gpt2, bert, minillama"),
        ({"model_type": ["llama"]}, r"model_type = \['llama'\]"),
        ({"model_type": "gpt2"}, "unknown key 'hidden_size'"),
        ({"hidden_act": "relu"}, "hidden_act = 'relu'; of a LLaMA minillama computes silu, gelu"),
        ({"attention_bias": True}, "8 tensors missing"),
        ({"mlp_bias": True}, "6 tensors missing"),
        ({"mlp_bias": "no"}, "mlp_bias = 'no'; it must be true or false"),
        ({"rope_scaling": 2.0}, "rope_scaling = 2.0; it must be a dictionary"),
        (
            {"rope_scaling": {"rope_type": "llama3"}},
            "rope_scaling has the rope_type 'llama3' and lacks factor, low_freq",
        ),
        ({"rope_scaling": {"type": "longrope"}}, "supported is a rope_type of default, linear, dynamic, llama3, yarn"),
        ({"rope_scaling": {"type": "linear", "factor": "2"}}, "rope_factor must be a finite number; received '2'"),
        ({"rope_scaling": {"type": "dynamic", "factor": "2"}}, "rope_factor must be a finite number; received '2'"),
        ({"rope_scaling": {"type": "dynamic", "factor": 1e308}}, "contradicts itself"),
        (
            {"rope_scaling": {"type": "linear", "factor": 2.0, "beta": 1}},
            "unknown key 'beta' for the rope_type 'linear'",
        ),
        (
            {"rope_scaling": {"type": "linear", "factor": 2.0}},
            "contradicts itself: rope_scaling = .* and rope_parameters",
        ),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1.0}}, "yarn"),
        (
            {"rope_parameters": {"rope_type": "default", "rope_theta": 5.0}},
            "rope_theta = 10000.0, rope_parameters's .* 5",
        ),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor = 0.5; minillama computes None"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "truncate": False}}, "truncate = False"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "attention_factor": 1.0}}, "the published 1.069"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "attention_factor": 10**400}}, "the published 1.06"),
        ({"max_sequence_length": "8"}, "context must be a whole number"),
        ({"head_dim": 64}, "head_dim = 64"),
        ({"num_key_value_heads": 3}, "kv_heads must divide heads"),
        ({"vocab_size": "many"}, "vocab_size must be a whole number"),
        ({"hidden_size": None}, "dim must be a whole number"),
        ({"vocab_size": 10}, r"embed_tokens.weight has shape \(9, 16\), config.json asks for \(10, 16\)|lm_head"),
        ({"num_hidden_layers": 3}, "9 tensors missing"),
    ],
)
def test_a_config_that_asks_for_something_else_is_refused(tmp_path, change, words):
    saved(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=words):
        minillama.load(tmp_path)


GPT2 = ALONE["GPT-2"]
BERT = {**ALONE["BERT"], "dropout": 0.0}


@pytest.mark.parametrize(
    "kind, change, words",
    [
        (
            GPT2,
            {"activation_function": "swish"},
            "activation_function = 'swish'; of a GPT-2 minillama computes gelu_new",
        ),
        (GPT2, {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx = True"),
        (GPT2, {"n_inner": None}, "c_fc.bias has shape|c_fc.weight has shape"),
        (GPT2, {"n_positions": 9}, r"wpe.weight has shape \(8, 12\), config.json asks for \(9, 12\)"),
        (GPT2, {"tie_word_embeddings": False}, r"1 tensors missing \['lm_head.weight'\]"),
        (BERT, {"hidden_act": "gelu_new"}, "hidden_act = 'gelu_new'"),
        (BERT, {"is_decoder": True}, "is_decoder = True"),
        (BERT, {"position_embedding_type": "relative_key"}, "relative_key"),
        (BERT, {"tie_word_embeddings": False}, "tie_word_embeddings = False"),
        (BERT, {"type_vocab_size": 1}, "token_types 1 gives every token the same kind"),
        ({"position": "none"}, {"norm": "batchnorm"}, "norm must be one of"),
        ({"position": "none"}, {"widht": 3}, "unknown key 'widht'"),
    ],
)
def test_a_config_of_each_kind_that_asks_for_something_else_is_refused(tmp_path, kind, change, words, rng):
    minillama.save(make(rng, np.float32, **kind)[0], tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=words):
        minillama.load(tmp_path)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("choice", ALONE)
def test_every_choice_is_kept(choice, dtype, tmp_path, rng):
    """Whatever a run trains, it can save; and what is read computes the same."""
    model, (ids, _), inputs = make(rng, dtype, **ALONE[choice])
    minillama.save(model, tmp_path)
    loaded, _ = minillama.load(tmp_path)
    logits = loaded.logits(ids, **inputs)
    assert logits.dtype == dtype
    # Relative to the largest logit: one near 0 is a difference of large numbers, summed in an order of BLAS's choice.
    assert relative_error(logits, model.logits(ids, **inputs)) < (1e-5 if dtype == np.float32 else 1e-13)
    if choice != "rope_layout interleaved":  # written in the other layout
        np.testing.assert_array_equal(loaded.parameters.flat, model.parameters.flat)
    saved_as = json.loads((tmp_path / "config.json").read_text())["model_type"]
    assert saved_as == model_type(model.config)
    if saved_as == "minillama":
        assert loaded.config == model.config


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({}, "llama"),
        ({"bias": ("qkv", "o")}, "llama"),
        ({"bias": ("ffn",), "feed_forward": "geglu"}, "llama"),
        ({"bias": ("qkv",)}, "minillama"),
        ({"bias": ("norm",)}, "minillama"),
        ({"position": "alibi"}, "minillama"),
        ({"norm": "layernorm"}, "minillama"),
        ({"mask": "bidirectional"}, "minillama"),
        ({"qk_norm": True}, "minillama"),
        (GPT2, "gpt2"),
        ({**GPT2, "feed_forward": "relu"}, "gpt2"),
        ({**GPT2, "feed_forward": "geglu"}, "minillama"),
        ({**GPT2, "kv_heads": 1}, "minillama"),
        ({**GPT2, "token_types": 2}, "minillama"),
        (BERT, "bert"),
        ({**BERT, "tied": False}, "minillama"),
        ({**BERT, "token_types": 0}, "minillama"),
        ({**BERT, "bias": BIASES[:-1]}, "minillama"),
    ],
)
def test_the_kind_of_directory_follows_from_the_config(changes, expected):
    kv_heads = changes.get("kv_heads", 4)
    assert model_type(Config(**{**SHAPE, **changes, "kv_heads": 4 if kv_heads == 3 else kv_heads})) == expected


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_field_of_a_config_has_its_place_in_each_format(name):
    """A field without one keeps a model from being saved in the format, unless it has its default."""
    row = ARCHITECTURES[name]
    assert sorted([*row.fields, *row.fixed, *row.free]) == sorted(Config.__dataclass_fields__)


def test_a_choice_without_a_place_in_a_format_is_not_lost_in_it():
    row = ARCHITECTURES["llama"]._replace(free=ARCHITECTURES["llama"].free - {"dropout"})
    assert row.expresses(Config(**SHAPE)) and not row.expresses(Config(**SHAPE, dropout=0.1))


@pytest.mark.parametrize(
    "config",
    [
        Config(**SHAPE, rope_scaling="dynamic", rope_factor=2.0, rope_original_context=4),
        Config(**SHAPE, rope_scaling="dynamic", rope_factor=2.0, rope_original_context=3),
        Config(**SHAPE, rope_scaling="dynamic", rope_factor=2.0),
        Config(**SHAPE, rope_scaling="llama3", rope_factor=2.0, rope_original_context=4, rope_low=0.5),
        Config(**SHAPE, rope_scaling="yarn", rope_factor=2.0, rope_high=8.0),
        Config(**SHAPE, rope_scaling="linear", rope_factor=2.0, tied=True, bias=("ffn",)),
        Config(**{**SHAPE, **GPT2, "kv_heads": 4, "norm_eps": 1e-3, "dropout": 0.25}),
        Config(**{**SHAPE, **BERT, "kv_heads": 4, "norm_eps": 1e-12, "dropout": 0.25}),
        Config(**SHAPE, position="none", bias=("qkv", "head")),
    ],
)
def test_config_json_gives_the_config_back(config):
    values = json.loads(json.dumps(config_to_json(config)))
    assert config_from_json(values) == config


@pytest.mark.parametrize("name", minillama.PRESETS)
def test_the_published_models_are_saved_as_their_architecture(name):
    config = minillama.PRESETS[name]
    assert model_type(config) == ("gpt2" if "gpt" in name else "bert" if "bert" in name else "llama")
    assert config_from_json(config_to_json(config)) == config


@pytest.mark.parametrize(
    "scaling",
    [
        {"type": "linear", "factor": 1.0},
        {"rope_type": "yarn", "factor": 1.0, "original_max_position_embeddings": 4},
        {"rope_type": "llama3", "factor": 1, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    ],
)
def test_a_factor_of_1_is_no_scaling(scaling):
    values = config_to_json(Config(**SHAPE))
    del values["rope_parameters"]
    assert config_from_json({**values, "rope_scaling": scaling}) == Config(**SHAPE)


@pytest.mark.parametrize("rope", [None, {"type": "linear", "factor": 2.0}])
def test_a_longest_sequence_beyond_the_positions(rope):
    values = config_to_json(Config(**SHAPE))
    del values["rope_parameters"]
    config = config_from_json({**values, "rope_scaling": rope, "max_sequence_length": 16})
    assert config.context == 16 and config.rope_original_context is None


def test_dynamic_scaling_of_a_foreign_config_reads_as_far_as_its_factor_stretches():
    values = config_to_json(Config(**SHAPE, rope_scaling="dynamic", rope_factor=2.5))
    del values["max_sequence_length"]
    config = config_from_json(values)
    assert config.context == 20 and config.rope_original_context == 8


def rewrite(folder, change):
    """Replace the tensors of a folder by change(tensors)."""
    save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors")


def older_gpt2(tensors):
    """The names of the first GPT-2 files: no prefix, and the causal mask as a tensor; and a copy of the embedding."""
    old = {name.removeprefix("transformer."): array for name, array in tensors.items()}
    masks = {f"h.{i}.attn.{name}": np.ones((1, 1, 8, 8), np.uint8) for i in (0, 1) for name in ("bias", "masked_bias")}
    return old | masks | {"lm_head.weight": old["wte.weight"].copy()}


def older_bert(tensors):
    """The names of the first BERT files: gamma and beta, positions as a tensor, the head's copies and the pooler."""
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): array
        for name, array in tensors.items()
    }
    return old | {
        "bert.embeddings.position_ids": np.arange(8)[None],
        "bert.pooler.dense.weight": np.ones((12, 12), np.float16),
        "cls.seq_relationship.weight": np.ones((2, 12), np.float32),
        "cls.predictions.decoder.weight": old["bert.embeddings.word_embeddings.weight"].copy(),
        "cls.predictions.decoder.bias": old["cls.predictions.bias"].copy(),
    }


def older_llama(tensors):
    return tensors | {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(2, np.float32)}


@pytest.mark.parametrize("kind, older", [(GPT2, older_gpt2), (BERT, older_bert), ({}, older_llama)])
def test_older_names_and_tensors_without_a_part_in_the_logits(kind, older, tmp_path, rng):
    model = make(rng, np.float32, **kind)[0]
    minillama.save(model, tmp_path)
    rewrite(tmp_path, older)
    np.testing.assert_array_equal(minillama.load(tmp_path)[0].parameters.flat, model.parameters.flat)


@pytest.mark.parametrize(
    "kind, older, copy",
    [(GPT2, older_gpt2, "lm_head.weight"), (BERT, older_bert, "cls.predictions.decoder.bias")],
)
def test_a_tied_matrix_that_differs_from_its_original_is_refused(kind, older, copy, tmp_path, rng):
    minillama.save(make(rng, np.float32, **kind)[0], tmp_path)

    def changed(tensors):
        tensors = older(tensors)
        tensors[copy] += 1
        return tensors

    rewrite(tmp_path, changed)
    with pytest.raises(ValueError, match=f"{copy} differs from .* tied"):
        minillama.load(tmp_path)


def test_a_config_that_lacks_a_key_is_refused(tmp_path):
    saved(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    del values["hidden_size"]
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match="lacks hidden_size"):
        minillama.load(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.99])
@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_truncated_files_are_refused(tmp_path, name, share):
    saved(tmp_path)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: int(share * len(data))])
    with pytest.raises(ValueError, match="truncated|not a complete JSON"):
        minillama.load(tmp_path)


def test_foreign_files_are_refused(tmp_path):
    with pytest.raises(
        FileNotFoundError, match="there is no model at .*; expected the folder of a run, or another with config.json"
    ):
        minillama.load(tmp_path)
    saved(tmp_path)
    save_file({"a": np.zeros(3, np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="21 tensors missing .* 1 unexpected"):
        minillama.load(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="no model.safetensors"):
        minillama.load(tmp_path)
    (tmp_path / "config.json").write_text("[1, 2]")
    with pytest.raises(ValueError, match="must hold an object"):
        minillama.load(tmp_path)


def test_other_kinds_of_numbers_are_refused_by_name(tmp_path):
    saved(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file({name: array.astype(np.int32) for name, array in tensors.items()}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="holds I32; supported are float32"):
        minillama.load(tmp_path)


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_behind(tmp_path):
    write_text(tmp_path / "a", "old")
    with pytest.raises(ZeroDivisionError):
        with replacing(tmp_path / "a") as new:
            new.write_text("half")
            raise ZeroDivisionError
    assert (tmp_path / "a").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_the_old_file_is_whole_until_the_new_one_takes_its_place_at_once(tmp_path, monkeypatch):
    write_text(tmp_path / "a", "old")
    seen = []

    def watching_replace(new, path):
        seen.append((new.read_text(), path.read_text()))
        replace(new, path)

    replace = os.replace
    monkeypatch.setattr("minillama.files.os.replace", watching_replace)
    write_text(tmp_path / "a", "new")
    assert seen == [("new", "old")] and (tmp_path / "a").read_text() == "new"


def test_a_full_disk_is_reported_as_such(tmp_path):
    write_text(tmp_path / "a", "old")
    with pytest.raises(OSError, match="disk is full; .* keeps its old content. Free some space"):
        with replacing(tmp_path / "a"):
            raise OSError(errno.ENOSPC, "No space left on device")
    assert (tmp_path / "a").read_text() == "old"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full")
def test_a_write_to_a_really_full_device(tmp_path):
    with pytest.raises(OSError, match="disk is full"):
        with replacing(tmp_path / "a"), open("/dev/full", "wb") as file:
            file.write(b"x" * 100_000)


def test_an_unwritable_folder_is_reported(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="cannot write"):
        minillama.save(Model(Config(**SHAPE), threads=1), tmp_path / "file" / "folder")
