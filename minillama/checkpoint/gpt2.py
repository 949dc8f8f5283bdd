"""GPT-2 of transformers (GPT2LMHeadModel): model_type "gpt2"

Its linear layers ("Conv1D") hold matrices as (in, out), ours are (out, in); queries, keys and values are one matrix.
Source: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.3.
"""

from .architecture import ROPE_FIELDS, Architecture, named

# Choices of feed_forward, and the names of transformers; of several for one function the first is written.
ACTIVATIONS = {"gelu_tanh": ("gelu_new", "gelu_pytorch_tanh"), "gelu": ("gelu",), "relu": ("relu",), "silu": ("silu",)}

# {key of config.json: why it says nothing about the logits}
_IGNORED = {
    "n_ctx": "the older name of n_positions, which is read",
    "reorder_and_upcast_attn": "how transformers computes the same",
    **dict.fromkeys(
        (
            "summary_activation", "summary_first_dropout", "summary_proj_to_labels", "summary_type", "summary_use_proj",
        ),
        "of a head for other tasks",
    ),
}  # fmt: skip

_OUTER = {
    "transformer.wte.weight": "embedding",
    "transformer.wpe.weight": "position_embedding",
    "transformer.ln_f.weight": "final_norm",
    "transformer.ln_f.bias": "final_norm_bias",
    "lm_head.weight": "output",
}
_BLOCK = {
    "ln_1.weight": "attention_norm",
    "ln_1.bias": "attention_norm_bias",
    "attn.c_attn.weight": "w_q w_k w_v",
    "attn.c_attn.bias": "b_q b_k b_v",
    "attn.c_proj.weight": "w_o",
    "attn.c_proj.bias": "b_o",
    "ln_2.weight": "ffn_norm",
    "ln_2.bias": "ffn_norm_bias",
    "mlp.c_fc.weight": "w_up",
    "mlp.c_fc.bias": "b_up",
    "mlp.c_proj.weight": "w_down",
    "mlp.c_proj.bias": "b_down",
}


def to_json(config):
    return {
        "activation_function": ACTIVATIONS[config.feed_forward][0],
        "embd_pdrop": config.dropout,
        "attn_pdrop": 0.0,
    }


def from_json(values):
    name = values.get("activation_function", "gelu_new")
    for feed_forward, names in ACTIVATIONS.items():
        if name in names:
            return {"feed_forward": feed_forward}
    known = ", ".join(name for names in ACTIVATIONS.values() for name in names)
    raise ValueError(f"config.json says activation_function = {name!r}; of a GPT-2 minillama computes {known}")


ARCHITECTURE = Architecture(
    architecture="GPT2LMHeadModel",
    names=named(_OUTER, "transformer.h.", _BLOCK),
    fields={
        "vocab_size": "vocab_size",
        "dim": "n_embd",
        "layers": "n_layer",
        "heads": "n_head",
        "ffn": "n_inner",
        "context": "n_positions",
        "norm_eps": "layer_norm_epsilon",
        "dropout": "resid_pdrop",
        "tied": "tie_word_embeddings",
    },
    defaults={"n_inner": None, "layer_norm_epsilon": 1e-5, "resid_pdrop": 0.1, "tie_word_embeddings": True},
    fixed={
        "norm": "layernorm",
        "placement": "pre",
        "position": "learned",
        "mask": "causal",
        "head": "linear",
        "bias": ("qkv", "o", "ffn", "norm"),
        "qk_norm": False,
        "embedding_norm": False,
        "token_types": 0,
    },
    free={"kv_heads", "feed_forward"} | ROPE_FIELDS,
    required={
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "add_cross_attention": (False,),
    },
    translated={"activation_function"},
    ignored=_IGNORED,
    allows=lambda config: config.kv_heads == config.heads and config.feed_forward in ACTIVATIONS,
    to_json=to_json,
    from_json=from_json,
    prefix="transformer.",
    transposed=("c_attn.weight", "c_proj.weight", "c_fc.weight"),
    dead=r"\.attn\.(bias|masked_bias)$",  # the causal mask, which older files hold
    copies={"lm_head.weight": "transformer.wte.weight"},
)
