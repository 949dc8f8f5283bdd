"""The package as a program with types uses it. `mypy --strict` passes on it, and it runs: tests/test_typing.py."""

from pathlib import Path

import numpy as np

import minillama
from minillama import IGNORED, PRESETS, Config, LayerAlone, Model
from minillama.analysis.perplexity import perplexity
from minillama.analysis.trace import trace
from minillama.catalogue.presets import tiny
from minillama.data.corpora import EncodedCorpus, encode_corpus, read_corpus
from minillama.generation.generate import fill, generate, next_token_distribution
from minillama.gradcheck import relative_error
from minillama.tokenizers import Tokenizer, load_tokenizer
from minillama.training.clipping import clip_gradients
from minillama.training.optimizers import AdamW
from minillama.training.run import Run
from minillama.training.schedules import learning_rate
from minillama.training.trainer import NotFinite, Settings, Trainer, evaluate
from minillama.weights.quantize import quantize


def train(corpus: EncodedCorpus, steps: int) -> Model:
    """A model, trained by a Trainer."""
    config = Config(corpus.tokenizer.vocab_size, dim=16, layers=1, heads=2, context=16)
    settings = Settings(steps=steps, batch_size=2)
    trainer = Trainer(Model(config, settings.seed, threads=1, init_std=settings.init_std), corpus, settings)
    try:
        while trainer.optimizer.steps < settings.steps:
            loss, norm, rate = trainer.step()
            print(f"{loss:.3f} {norm:.3f} {rate:.3g}")
    except NotFinite as error:
        print(error)
    print(trainer.evaluate(), evaluate(trainer.model, corpus.validation, corpus.tokenizer), trainer.floor)
    return trainer.model


def step_by_hand(model: Model, ids: np.ndarray) -> float:
    """One step without a Trainer; what can be had from arrays and lists alike."""
    targets = np.roll(ids, -1, axis=1)
    targets[:, -1] = IGNORED
    loss, gradients = model.loss_and_gradients(ids, targets, micro_batches=1)
    norm = clip_gradients(gradients, 1.0)
    optimizer = AdamW(model.parameters, weight_decay=0.0)
    optimizer.step(gradients, learning_rate(1, 10, 1e-3, 2, 0.1))
    largest = max(float(np.abs(gradient).max()) for gradient in gradients.values())
    return loss + norm + largest + model.loss(ids.tolist(), targets.tolist())


def continuation(model: Model, tokenizer: Tokenizer, prompt: str) -> str:
    """Text from the model, token by token, with a cache."""
    ids = tokenizer.encode(prompt)
    p = next_token_distribution(model.next_logits(ids[None])[0], temperature=0.8, top_k=4)
    print(p.sum(), trace(model, ids).attention.shape)
    tokens = list(generate(model, ids.tolist(), 4, seed=1, cache=model.new_cache(), stop=[tokenizer.end_of_text]))
    print(list(tokenizer.encode_iterable(["to be", " or not"])))
    return tokenizer.decode(tokens)


def gaps(vocab_size: int, mask_token: int) -> list[int]:
    """A model of another family fills gaps."""
    model = Model(tiny("bert", vocab_size, 16, layers=1), threads=1)
    ids, probabilities = fill(model, [0, mask_token, 1], mask_token)
    return [int(i) for i in ids[probabilities < 1]]


def layer(config: Config) -> float:
    """A layer alone, and how far its gradient is from itself."""
    alone = LayerAlone("attention", config, dtype=np.float64)
    y, kept = alone.forward(np.ones((1, 4, config.dim)))
    dx, gradients = alone.backward(y, kept)
    return relative_error(dx, dx) + relative_error(gradients["w_q"], gradients["w_q"])


def main(folder: Path, text: Path) -> None:
    corpus = encode_corpus(text, "char")
    print(len(read_corpus(text).train), PRESETS["llama-7b"].head_dim)
    model = train(corpus, steps=2)
    print(step_by_hand(model, corpus.train[None, :8]))
    minillama.save(model, folder / "model", corpus.tokenizer)
    opened, tokenizer = minillama.load(folder / "model", threads=1, dtype="float32")
    if tokenizer is None:
        tokenizer = load_tokenizer(folder / "model")
    print(continuation(quantize(opened, "int8"), tokenizer, "to be"))
    print(perplexity(opened, tokenizer, "to be or not to be").bits_per_byte)
    print(gaps(tokenizer.vocab_size, 2), layer(model.config))
    run = Run.start(folder / "run", model.config, Settings(steps=2, batch_size=2), corpus, threads=1)
    loss: float | None = run.train(quiet=True)
    print(loss)


def mistakes(model: Model, tokenizer: Tokenizer, corpus: EncodedCorpus) -> None:
    """Each line is an error that types find. If one is no longer found, `--strict` says that its comment is unused."""
    Config(vocab_size="65")  # type: ignore[arg-type]
    Config(65, width=16)  # type: ignore[call-arg]
    Model(65)  # type: ignore[arg-type]
    Model(model.config, threads="all")  # type: ignore[arg-type]
    model.loss_and_gradient([[1]], [[2]])  # type: ignore[attr-defined]
    model.parameters["output"] = np.zeros(1)  # type: ignore[index]
    model.logits([[1]]).backward()  # type: ignore[attr-defined]
    minillama.save("folder", model)  # type: ignore[arg-type]
    minillama.load("folder")[1].encode("to be")  # type: ignore[union-attr]
    tokenizer.encode(b"to be")  # type: ignore[arg-type]
    generate(model, "to be")  # type: ignore[arg-type]
    Settings(steps=1.5)  # type: ignore[arg-type]
    Trainer(model, Settings(), corpus)  # type: ignore[arg-type]
    quantize(model).loss("x", 1, 2, 3, 4)  # type: ignore[call-arg]
