"""`train --from` the folders that transformers writes: half precision, its tokenizers, its objectives."""

import numpy as np
import pytest

import minillama
from minillama.cli.continuing import Begun
from minillama.training.trainer import Settings

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

TEXT = "The cat sat on the mat, and the dog ran. What is a llama? A llama is a kind animal.\n" * 40


def byte_level(folder):
    made = tokenizers.ByteLevelBPETokenizer()
    made.train_from_iterator([TEXT], 300, special_tokens=["<s>", "</s>"], show_progress=False)
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=made._tokenizer, bos_token="<s>", eos_token="</s>", clean_up_tokenization_spaces=False
    )
    fast.save_pretrained(folder)
    return fast


def wordpiece(folder):
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = sorted({word.strip(".,?\n").lower() for word in TEXT.split()})
    (folder / "vocab.txt").write_text("\n".join([*names, *words, ".", ",", "?"]) + "\n", encoding="utf-8")
    return transformers.BertTokenizer.from_pretrained(folder)


def llama(folder):
    fast = byte_level(folder)
    config = transformers.LlamaConfig(
        vocab_size=len(fast), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, bos_token_id=fast.bos_token_id,
        eos_token_id=fast.eos_token_id,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


def gpt2(folder):
    fast = byte_level(folder)
    config = transformers.GPT2Config(
        vocab_size=len(fast), n_embd=32, n_layer=2, n_head=2, n_positions=64, bos_token_id=fast.eos_token_id,
        eos_token_id=fast.eos_token_id,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config)


def bert(folder):
    vocab_size = len(wordpiece(folder))
    config = transformers.BertConfig(
        vocab_size=vocab_size, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64,
    )  # fmt: skip
    return transformers.BertForMaskedLM(config)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("make", [llama, gpt2, bert])
def test_a_model_of_transformers_is_trained_on(make, dtype, tmp_path):
    folder = tmp_path / "theirs"
    folder.mkdir()
    torch.manual_seed(0)
    theirs = make(folder).to(dtype).eval()
    theirs.save_pretrained(folder)
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    settings = Settings(steps=60, batch_size=4, lr=1e-2, eval_every=60)
    given = {"from": str(folder), "context": 32}
    run = Begun(given, tmp_path / "run", settings, False).start(tmp_path / "text.txt", 1)
    ids = np.random.default_rng(0).integers(5, theirs.config.vocab_size, (2, 32))
    with torch.no_grad():
        expected = theirs.float()(torch.tensor(ids)).logits.numpy()
    assert run.model.dtype == np.float32
    np.testing.assert_allclose(run.model.logits(ids), expected, rtol=0, atol=1e-5)
    assert run.objective.unit == ("hidden token" if make is bert else "token")
    before = run.evaluate()
    assert run.train(quiet=True) < before - 0.3
    auto = transformers.AutoModelForMaskedLM if make is bert else transformers.AutoModelForCausalLM
    again = auto.from_pretrained(tmp_path / "run").eval()  # and back: what was trained is theirs again
    with torch.no_grad():
        np.testing.assert_allclose(run.model.logits(ids), again(torch.tensor(ids)).logits.numpy(), rtol=0, atol=1e-4)
    kept = transformers.AutoTokenizer.from_pretrained(tmp_path / "run")
    text = "The dog sat."
    ours = minillama.load(tmp_path / "run")[1]
    assert kept(text, add_special_tokens=False)["input_ids"] == ours.encode(text).tolist()
