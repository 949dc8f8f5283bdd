"""BERT of transformers with its head for masked language modelling (BertForMaskedLM): model_type "bert"

A file of BertForPreTraining is read too: the pooler and the classifier of sentence pairs lead to other outputs, and are
left aside. BertModel alone has no head, so it has no logits, and is refused. The output matrix is the embedding, as in
the paper's model: untied ones of transformers 4 and 5 disagree about which of two biases counts.
Source: Devlin et al. 2018 (arXiv 1810.04805).
"""

from ..config import BIASES
from .architecture import ROPE_FIELDS, Architecture, named

# {key of config.json: why it says nothing about the logits}
_IGNORED = {
    "directionality": "of Google's older code, which has one value only",
    **dict.fromkeys(
        (
            "pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers", "pooler_size_per_head",
            "pooler_type",
        ),
        "of the pooler, which leads to other outputs",
    ),
}  # fmt: skip

_OUTER = {
    "bert.embeddings.word_embeddings.weight": "embedding",
    "bert.embeddings.position_embeddings.weight": "position_embedding",
    "bert.embeddings.token_type_embeddings.weight": "type_embedding",
    "bert.embeddings.LayerNorm.weight": "embedding_norm",
    "bert.embeddings.LayerNorm.bias": "embedding_norm_bias",
    "cls.predictions.transform.dense.weight": "w_head",
    "cls.predictions.transform.dense.bias": "b_head",
    "cls.predictions.transform.LayerNorm.weight": "head_norm",
    "cls.predictions.transform.LayerNorm.bias": "head_norm_bias",
    "cls.predictions.bias": "output_bias",
}
_BLOCK = {
    "attention.self.query.weight": "w_q",
    "attention.self.query.bias": "b_q",
    "attention.self.key.weight": "w_k",
    "attention.self.key.bias": "b_k",
    "attention.self.value.weight": "w_v",
    "attention.self.value.bias": "b_v",
    "attention.output.dense.weight": "w_o",
    "attention.output.dense.bias": "b_o",
    "attention.output.LayerNorm.weight": "attention_norm",
    "attention.output.LayerNorm.bias": "attention_norm_bias",
    "intermediate.dense.weight": "w_up",
    "intermediate.dense.bias": "b_up",
    "output.dense.weight": "w_down",
    "output.dense.bias": "b_down",
    "output.LayerNorm.weight": "ffn_norm",
    "output.LayerNorm.bias": "ffn_norm_bias",
}


def to_json(config):
    # With an id for padding, transformers would not train that token's embedding; lengths say what is padding here.
    return {"attention_probs_dropout_prob": 0.0, "pad_token_id": None}


ARCHITECTURE = Architecture(
    architecture="BertForMaskedLM",
    names=named(_OUTER, "bert.encoder.layer.", _BLOCK),
    fields={
        "vocab_size": "vocab_size",
        "dim": "hidden_size",
        "layers": "num_hidden_layers",
        "heads": "num_attention_heads",
        "ffn": "intermediate_size",
        "context": "max_position_embeddings",
        "norm_eps": "layer_norm_eps",
        "dropout": "hidden_dropout_prob",
        "token_types": "type_vocab_size",
    },
    defaults={"layer_norm_eps": 1e-12, "hidden_dropout_prob": 0.1, "type_vocab_size": 2},
    fixed={
        "norm": "layernorm",
        "placement": "post",
        "position": "learned",
        "feed_forward": "gelu",
        "mask": "bidirectional",
        "head": "masked_lm",
        "bias": BIASES,
        "qk_norm": False,
        "embedding_norm": True,
        "tied": True,
    },
    free={"kv_heads"} | ROPE_FIELDS,
    required={
        "hidden_act": ("gelu",),
        "tie_word_embeddings": (True,),
        "position_embedding_type": ("absolute",),
        "is_decoder": (False,),
        "add_cross_attention": (False,),
    },
    ignored=_IGNORED,
    allows=lambda config: config.kv_heads == config.heads and config.token_types > 0,
    to_json=to_json,
    prefix="bert.",
    dead=r"^(bert\.)?pooler\.|^cls\.seq_relationship\.|\.position_ids$",
    old_names={"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"},
    copies={
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    },
)
