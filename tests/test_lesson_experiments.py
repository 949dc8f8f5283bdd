"""What the lessons' experiments rest on: results that an interruption leaves whole, gradients, and what is stable."""

import json
from collections import Counter
from math import log

import numpy as np
import pytest

from minillama import Config, Model
from minillama.data.batches import Batches
from minillama.data.corpora import encode_corpus
from minillama.gradcheck import numerical_gradient, relative_error
from minillama.lessons import learn_product, learning_rates, notebooks, one_head
from minillama.training.clipping import clip_scale, gradient_norm
from minillama.training.optimizers import AdamW
from minillama.training.schedules import learning_rate
from minillama.training.trainer import evaluate


def result(variant, layers, rate, warmup, seed, steps=200):
    """As learning_rates.train gives it."""
    kept = {"variant": variant, "layers": layers, "rate": rate, "warmup": warmup, "seed": seed}
    measured = {"loss": 2.5, "first_loss": 6.0, "worst_loss": 6.5, "steps": steps, "unigram_loss": 4.5, "seconds": 1.5}
    return kept | measured


@pytest.fixture
def asked(monkeypatch):
    """The trainings that learning_rates asks for; none is done."""
    jobs = []

    def train(corpus, *job):
        jobs.append(job[:-1])
        return result(*job)

    monkeypatch.setattr(learning_rates, "train", train)
    monkeypatch.setattr(learning_rates, "encode_corpus", lambda name: None)
    monkeypatch.setattr(learning_rates, "RATES", (0.002, 0.004))
    monkeypatch.setattr(learning_rates, "DEPTHS", (2, 8))
    return jobs


def test_an_interrupted_run_goes_on_behind_the_last_whole_line(tmp_path, asked):
    path = tmp_path / "rates.jsonl"
    assert learning_rates.main(["--out", str(path), "--seeds", "0"]) is None
    whole, jobs = path.read_text(encoding="utf-8"), list(asked)
    assert len(learning_rates.read(path)) == len(jobs) == 2 * 2 * 2 * len(learning_rates.VARIANTS)
    lines = whole.splitlines(keepends=True)
    for cut in (1, 5, 20, len(lines[-1]) - 1, len(lines[-1])):  # how much is missing of the last line
        asked.clear()
        path.write_text(whole[:-cut], encoding="utf-8")
        assert learning_rates.main(["--out", str(path), "--seeds", "0"]) is None
        assert asked == jobs[-1:]
        assert path.read_text(encoding="utf-8") == whole
    asked.clear()
    path.write_text(whole[:10], encoding="utf-8")  # not one whole line
    assert learning_rates.main(["--out", str(path), "--seeds", "0"]) is None
    assert asked == jobs and path.read_text(encoding="utf-8") == whole


def test_a_training_is_the_loop_that_the_lesson_describes(tmp_path, monkeypatch):
    """Batches, clipping, schedule and AdamW by hand: what `train` gives with a Trainer is this to the last digit."""
    monkeypatch.setattr("minillama.data.corpora.STORIES_CHARACTERS", 60_000)
    corpus, steps, rate = encode_corpus("stories", vocab_size=300), 60, 0.016
    found = learning_rates.train(corpus, "post, LayerNorm", 3, rate, 50, 2, steps)
    choices = learning_rates.VARIANTS["post, LayerNorm"]
    config = Config(corpus.tokenizer.vocab_size, **learning_rates.SHAPE, layers=3, **choices)
    model = Model(config, 2, threads=1, init_std=learning_rates.INIT_STD)
    optimizer, losses = AdamW(model.parameters, (0.9, 0.95), 1e-8, 0.1), []
    batches = Batches(corpus.train, config.context, 8, 2, corpus.tokenizer.end_of_text)
    for step in range(steps):
        loss, gradients = model.loss_and_gradients(*batches[step])
        losses.append(loss)
        scale = clip_scale(gradient_norm(gradients, model.workers), 1.0)
        optimizer.step(gradients, learning_rate(step + 1, steps, rate, 50, 0.1), scale, model.workers)
    final = evaluate(model, corpus.validation[: learning_rates.VALIDATION_TOKENS], corpus.tokenizer)
    assert found["loss"] == round(final, 5) and found["steps"] == steps
    assert (found["first_loss"], found["worst_loss"]) == (round(losses[0], 4), round(max(losses), 4))


def test_a_training_that_diverges_says_how_far_it_came(monkeypatch):
    monkeypatch.setattr("minillama.data.corpora.STORIES_CHARACTERS", 60_000)
    corpus = encode_corpus("stories", vocab_size=300)
    found = learning_rates.train(corpus, "no norm", 8, 1e6, 0, 0, 60)
    assert found["loss"] is None and 1 <= found["steps"] < 60


@pytest.mark.parametrize(
    "option, words",
    [
        (["--steps", "50"], "--steps must be more than the longest warm-up, 50; received 50"),
        (["--layers", "8", "0"], "--layers must be 1 or more; received 0"),
    ],
)
def test_steps_and_depths_that_cannot_be_trained_are_refused(tmp_path, asked, capsys, option, words):
    assert learning_rates.main(["--out", str(tmp_path / "rates.jsonl"), *option]) == 1
    assert words in capsys.readouterr().err
    assert asked == [] and list(tmp_path.iterdir()) == []


def test_depths_can_be_chosen(tmp_path, asked):
    assert learning_rates.main(["--out", str(tmp_path / "rates.jsonl"), "--seeds", "1", "--layers", "48"]) is None
    assert {(layers, seed) for _, layers, _, _, seed in asked} == {(48, 1)}


RESULT = json.dumps(result("post, RMSNorm", 8, 0.002, 0, 0))


@pytest.mark.parametrize(
    "content, words",
    [
        ("one line", "'one line', is no result"),
        ("one line\n", "line 1"),
        ("{", "'{', is no result"),
        ('{"variant": "pre"', "is no result"),
        (f"{RESULT}\nand a word", "'and a word', is no result"),
        (f"{RESULT}\n\n", "line 2"),
        (f"{RESULT}\n{{}}\n", "line 2"),
        (RESULT.replace("post, RMSNorm", "post, PeakNorm") + "\n", "line 1"),
        (RESULT.replace("0.002", '"0.002"') + "\n", "has rate = '0.002'"),
        (RESULT.replace("200", "100") + "\n", "--steps 100"),
        (b"\xff\xfe\n", "can't decode"),
    ],
)
def test_a_file_of_anything_else_is_refused_and_stays(tmp_path, asked, capsys, content, words):
    path = tmp_path / "foreign.txt"
    before = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(before)
    assert learning_rates.main(["--out", str(path)]) == 1
    error = capsys.readouterr().err
    assert words in error and "Nothing was changed" in error
    assert path.read_bytes() == before and asked == []


def test_a_folder_is_no_file_of_results(tmp_path, asked):
    assert learning_rates.main(["--out", str(tmp_path)]) == 1
    assert learning_rates.main(["--out", str(tmp_path / "missing" / "rates.jsonl")]) == 1
    assert asked == [] and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "losses, expected",
    [
        ([3.0, 2.0, 2.1, 4.0], 0.3),
        ([3.0, 2.0, 2.3, 2.1], 0.2),  # what comes after the first unstable rate does not count
        ([2.0, None, 2.1, 2.1], 0.1),
        ([None, None, None, 5.0], 0.4),
        ([None, None, None, None], None),
    ],
)
def test_the_highest_stable_rate(losses, expected):
    results = [
        {"variant": "a", "layers": 8, "warmup": 0, "seed": 1, "rate": rate, "loss": loss}
        for rate, loss in zip((0.1, 0.2, 0.3, 0.4), losses, strict=True)
    ]
    others = [{**result, key: 2, "loss": 0.0} for result in results for key in ("seed", "layers", "warmup")]
    assert learning_rates.highest_stable(results[::-1] + others, "a", 8, 0, 1, slack=0.2) == expected


@pytest.mark.parametrize("mask", one_head.MASKINGS)
@pytest.mark.parametrize("task", [one_head.lookup_task, one_head.dice_task])
def test_the_gradients_of_one_head_are_those_of_its_own_mask(task, mask, rng):
    x, answers = task(rng, 2)[:2]
    shapes = [(x.shape[-1], 3)] * 3 + [(3, one_head.DIGITS)]
    matrices = [rng.normal(size=shape) for shape in shapes]
    found = one_head.gradients(matrices, x, answers, mask)[1]
    for got, matrix in zip(found, matrices, strict=True):
        expected = numerical_gradient(lambda: one_head.gradients(matrices, x, answers, mask)[0], matrix)
        assert relative_error(got, expected) < 1e-6


def test_the_answer_of_a_lookup_stands_with_the_letter_that_is_asked_for(rng):
    x, answers, places = one_head.lookup_task(rng, 5)
    letters, digits, wanted = (part.argmax(axis=-1) for part in np.split(x, 3, axis=-1))
    assert np.all(places <= np.arange(one_head.LENGTH))
    assert np.array_equal(np.take_along_axis(letters, places, axis=1), wanted)
    assert np.array_equal(np.take_along_axis(digits, places, axis=1), answers)


@pytest.mark.parametrize("kind", learn_product.WIDTHS)
def test_the_gradients_of_networks_that_learn_a_product(kind, rng):
    net, x = learn_product.network(kind, 3, [1, 2]), rng.uniform(-1, 1, (2, 5, 2))
    found = learn_product.loss_and_gradients(kind, net, x)[1]
    for got, array in zip(found, net, strict=True):
        expected = numerical_gradient(lambda: learn_product.loss_and_gradients(kind, net, x)[0].sum(), array)
        assert relative_error(got, expected) < 1e-6


def test_networks_that_learn_a_product_have_the_same_sizes_and_no_influence_on_each_other():
    sizes = {
        kind: [learn_product.network(kind, width, [0]).parameters for width in widths]
        for kind, widths in learn_product.WIDTHS.items()
    }
    assert sizes == {"relu": [16, 28, 56, 112], "silu": [16, 28, 56, 112], "swiglu": [14, 28, 56, 112]}
    both = learn_product.train("swiglu", 3, [1, 2], [0.1, 0.01], steps=20)
    alone = [learn_product.train("swiglu", 3, [seed], [rate], steps=20)[0] for seed, rate in ((1, 0.1), (2, 0.01))]
    np.testing.assert_allclose(both, alone, rtol=1e-9)
    assert both[1] < 1.5  # relative to answering 0: it learns, and does not run away


def test_the_table_of_witten_and_bell_is_its_definition():
    """Lesson 00's function against the recursion written out, with counts made by looking; and sums over characters."""
    sources = [cell.source for cell in notebooks.read(notebooks.paths(["00"])[0]).cells]
    scope = {"Counter": Counter, "log": log, "np": np}
    for name in ("count", "witten_bell"):
        (source,) = (source for source in sources if f"def {name}(" in source)
        exec(source[source.index(f"def {name}(") :].split("\n\n\n")[0], scope)
    text, alphabet = "abracadabra, cadabra; barcarole", sorted(set("abracadabra, cadabra; barcarole"))

    def definition(character, context):
        shorter = definition(character, context[1:]) if context else 1 / len(alphabet)
        starts = range(len(text) - len(context))
        followed = [text[i + len(context)] for i in starts if text[i : i + len(context)] == context]
        kinds = len(set(followed))
        return (followed.count(character) + kinds * shorter) / (len(followed) + kinds) if followed else shorter

    def by_lesson(later):
        p = np.full(len(later), 1 / len(alphabet))
        for n in range(1, 6):
            p = scope["witten_bell"](scope["count"](text, n), later, n, p)
        return p

    later = "a barcadabrarole, bbbb;"
    expected = [definition(later[i], later[max(0, i - 4) : i]) for i in range(len(later))]
    np.testing.assert_allclose(by_lesson(later), expected, rtol=1e-12)
    for context in ("abra", "bbbb", "cada"):
        assert sum(by_lesson(context + c)[-1] for c in alphabet) == pytest.approx(1, abs=1e-12)
