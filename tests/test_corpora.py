"""Text in: reading, splitting, encoding, batches, and input that cannot be used."""

import errno
import json

import numpy as np
import pytest

from minillama import IGNORED
from minillama.data import corpora
from minillama.data.batches import Batches, evaluation_batches
from minillama.data.corpora import encode_corpus, read_corpus
from minillama.tokenizers import BPETokenizer, load_tokenizer


def test_the_last_tenth_of_a_file_is_the_validation_split(tmp_path):
    text = "".join(chr(97 + i % 26) for i in range(1000))
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + text.replace("z", "\r\n").encode())
    corpus = read_corpus(tmp_path / "a.txt")
    text = text.replace("z", "\n")
    assert corpus.train == [text[:900]] and corpus.validation == [text[900:]] and corpus.entropy is None


def test_a_folder_is_one_document_a_file_in_order_of_names(tmp_path):
    for name, content in {"b.txt": "b" * 60, "sub/c.md": "c" * 35, "a.txt": "a" * 5, "x.bin": "x", "e.txt": ""}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    corpus = read_corpus(tmp_path)
    assert corpus.train == ["a" * 5, "b" * 60, "c" * 25] and corpus.validation == ["c" * 10]


def test_a_file_with_end_of_text_markers_is_several_documents(tmp_path):
    (tmp_path / "a.txt").write_text("first one<|endoftext|>second one<|endoftext|>" + "third " * 30)
    corpus = read_corpus(tmp_path / "a.txt")
    assert corpus.train[:2] == ["first one", "second one"]
    assert encode_corpus(tmp_path / "a.txt", "char").tokenizer.end_of_text is not None


@pytest.mark.parametrize("data", ["file", "folder", "marked", "stories", "one character"])
def test_a_tokenizer_is_trained_on_all_of_its_text(cli, tmp_path, monkeypatch, data):
    """Also on the last tenth, and on the word that a split would cut; a text that gives less says so."""
    monkeypatch.setattr(corpora, "STORIES_CHARACTERS", 5_000)
    last = "abcdefgh " * 3 + "the end"
    path = tmp_path / "text"
    texts = ["first words. " * 30, last]
    if data == "folder":
        path.mkdir()
        for i, text in enumerate(texts):
            (path / f"{i}.txt").write_text(text)
    elif data == "stories":
        path, made = "stories", corpora.stories.generate(5_000, corpora.STORIES_SEED)
        texts = made.train + made.validation
    else:
        texts = {"file": ["".join(texts)], "marked": texts, "one character": ["x"]}[data]
        path.write_text("<|endoftext|>".join(texts))
    for size in 300, 2000:
        code, out, _ = cli("tokenizer", "train", path, "--vocab-size", size, "--out", tmp_path / str(size))
        expected = BPETokenizer.train(texts, size)
        saved = load_tokenizer(tmp_path / str(size))
        assert code == 0 and saved.to_json() == expected.to_json()
        less = f": all that this text gives, of {size} asked for" if saved.vocab_size < size else ""
        assert out == f"{saved.vocab_size} tokens in {tmp_path / str(size)}{less}\n"
    assert read_corpus(path, held_out=0) == corpora.Corpus(texts, [])


def test_documents_of_the_validation_split_alone_are_kept_apart_too(tmp_path):
    (tmp_path / "a.txt").write_text("a" * 95)
    (tmp_path / "b.txt").write_text("b" * 5)
    encoded = encode_corpus(tmp_path, "char")
    assert encoded.tokenizer.decode(encoded.validation) == "<|endoftext|>aaaaa<|endoftext|>bbbbb<|endoftext|>"


def same(one, other):
    return (
        one.tokenizer.to_json() == other.tokenizer.to_json()
        and all(
            getattr(one, split).dtype == getattr(other, split).dtype
            and np.array_equal(getattr(one, split), getattr(other, split))
            for split in ("train", "validation")
        )
        and all(
            getattr(one, name) == getattr(other, name)
            for name in ("validation_characters", "entropy", "fingerprint", "source")
        )
    )


def other_number(path, name):
    """The file with another number under this name, as a flipped bit leaves it."""
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, name: 3}))


def other_array(path, change):
    np.save(path, change(np.load(path)))


DAMAGE = {
    "empty": lambda path: path.write_bytes(b""),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-7]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\n{"),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "a list": lambda path: path.write_text("[1, 2]"),
    "not UTF-8": lambda path: path.write_bytes(b"\xff" + path.read_bytes()),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "gone": lambda path: path.unlink(),
}
ARRAY_DAMAGE = {
    "shorter": lambda path: other_array(path, lambda tokens: tokens[:-1]),
    "longer array": lambda path: other_array(path, lambda tokens: np.append(tokens, tokens[:1])),
    "wider": lambda path: other_array(path, lambda tokens: tokens.astype(np.int64)),
    "two dimensions": lambda path: other_array(path, lambda tokens: tokens[None]),
    "another token": lambda path: other_array(path, lambda tokens: np.append(tokens[:-1], tokens[-1] + 1)),
    "no numbers": lambda path: other_array(path, lambda tokens: tokens.astype(object)),
}
FACT_DAMAGE = {
    name: lambda path, name=name: other_number(path, name)
    for name in ("validation_characters", "entropy", "fingerprint", "unknown", "check")
}
CASES = [
    *((name, damage) for name in ("corpus.json", "train.npy", "validation.npy", "tokenizer.json") for damage in DAMAGE),
    *((name, damage) for name in ("train.npy", "validation.npy") for damage in ARRAY_DAMAGE),
    *(("corpus.json", damage) for damage in FACT_DAMAGE),
    ("tokenizer.json", "another's"),
]


@pytest.mark.parametrize("name, damage", CASES)
def test_a_damaged_cache_is_said_to_be_and_made_anew(tmp_path, monkeypatch, capfd, name, damage):
    monkeypatch.setenv("MINILLAMA_CACHE", str(tmp_path / "cache"))
    (tmp_path / "a.txt").write_text("some other text " * 100)
    first = encode_corpus(tmp_path / "a.txt", "bpe", 270, mask_token=True)
    (folder,) = (tmp_path / "cache").iterdir()
    assert same(encode_corpus(tmp_path / "a.txt", "bpe", 270, mask_token=True), first)
    assert capfd.readouterr() == ("", "")
    if damage == "another's":
        BPETokenizer.train("something else " * 50, 270, ("<|endoftext|>", "<|mask|>")).save(folder)
    else:
        {**DAMAGE, **ARRAY_DAMAGE, **FACT_DAMAGE}[damage](folder / name)
    assert same(encode_corpus(tmp_path / "a.txt", "bpe", 270, mask_token=True), first)
    said = capfd.readouterr().err
    if damage == "a folder":  # which is nobody's to remove
        assert "MINILLAMA_CACHE" in said
    elif (name, damage) == ("corpus.json", "gone") or (damage == "longer" and name.endswith(".npy")):
        assert said == ""  # as after a kill, before all was written; and what comes after an array changes nothing
    else:
        assert "cannot be used and is made anew" in said and str(folder) in said and said.count("\n") == 1
        assert same(encode_corpus(tmp_path / "a.txt", "bpe", 270, mask_token=True), first)
        assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("place", ["a folder that cannot be", "a home that cannot be", "no home", "a full disk"])
def test_where_nothing_can_be_kept_the_text_is_encoded_without_a_cache(tmp_path, monkeypatch, capfd, place):
    (tmp_path / "a.txt").write_text("some text " * 100)
    first = encode_corpus(tmp_path / "a.txt", "char")
    (tmp_path / "file").write_text("in the way")
    monkeypatch.delenv("MINILLAMA_CACHE")
    if place == "a folder that cannot be":
        monkeypatch.setenv("MINILLAMA_CACHE", str(tmp_path / "file" / "cache"))
    elif place == "a full disk":
        monkeypatch.setenv("MINILLAMA_CACHE", str(tmp_path / "cache"))

        def full(*_, **__):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(np, "save", full)
    else:

        def home():
            if place == "no home":
                raise RuntimeError("Could not determine home directory.")
            return tmp_path / "file"

        monkeypatch.setattr(corpora.Path, "home", home)
    capfd.readouterr()
    for _ in range(2):
        assert same(encode_corpus(tmp_path / "a.txt", "char"), first)
        said = capfd.readouterr().err
        assert said.count("\n") == 1 and "MINILLAMA_CACHE names a folder for it" in said


def test_encoded_streams_have_the_end_of_text_between_documents(tmp_path):
    (tmp_path / "a.txt").write_text("hello hello hello hello hello " * 5)
    (tmp_path / "b.txt").write_text("hello, world " * 12)
    encoded = encode_corpus(tmp_path, "bpe", 260)
    end, decode = encoded.tokenizer.end_of_text, encoded.tokenizer.decode
    assert encoded.tokenizer.vocab_size == 260
    assert (encoded.train == end).sum() == 3 and encoded.train[0] == encoded.train[-1] == end
    corpus = read_corpus(tmp_path)
    assert decode(encoded.train) == "<|endoftext|>" + "".join(f"{d}<|endoftext|>" for d in corpus.train)
    assert decode(encoded.validation) == f"<|endoftext|>{corpus.validation[0]}<|endoftext|>"
    assert encoded.validation_characters == len(corpus.validation[0]) and encoded.floor is None


def test_one_file_by_characters_has_just_its_characters(tmp_path):
    (tmp_path / "a.txt").write_text("abcab" * 100)
    encoded = encode_corpus(tmp_path / "a.txt", "char")
    assert encoded.tokenizer.vocab_size == 3 and len(encoded.train) == 450 and len(encoded.validation) == 50
    assert encoded.per_character(2.0) == pytest.approx(2.0 * 49 / 50)


def test_an_encoded_corpus_is_cached_by_content(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("some text " * 100)
    first = encode_corpus(path, "char")
    path.rename(tmp_path / "b.txt")
    with monkeypatch.context() as patch:
        patch.setattr(corpora, "_encode", None)
        again = encode_corpus(tmp_path / "b.txt", "char")
    np.testing.assert_array_equal(again.train, first.train)
    assert again.fingerprint == first.fingerprint
    (tmp_path / "b.txt").write_text("some texT " * 100)
    assert encode_corpus(tmp_path / "b.txt", "char").fingerprint != first.fingerprint


def test_stories_come_with_their_entropy(monkeypatch):
    monkeypatch.setattr(corpora, "STORIES_CHARACTERS", 30_000)
    encoded = encode_corpus("stories", "bpe", 300)
    text = encoded.tokenizer.decode(encoded.validation)
    stories = [story for story in text.split("<|endoftext|>") if story]
    assert encoded.validation_characters == sum(map(len, stories))
    from minillama.data.stories import log_probability

    assert encoded.entropy == pytest.approx(-sum(map(log_probability, stories)))
    assert encoded.floor == pytest.approx(encoded.entropy / (len(encoded.validation) - 1))


@pytest.mark.parametrize("length", [9, 16, 17, 41, 48, 57, 100, 1003])
def test_an_epoch_is_windows_side_by_side_in_random_order_and_then_what_they_leave_at_the_ends(length):
    tokens = np.arange(length, dtype=np.int32)
    batches = Batches(tokens, 8, 3, seed=4)
    rows = [row for step in range(batches.windows) for row in batches[step][0]]  # 3 epochs
    for epoch in np.split(np.array(rows), 3):
        *cut, first, nearly_last, last = epoch[:, 0]
        assert np.array_equal(np.diff(sorted(cut)), [8] * (len(cut) - 1))  # none twice
        assert first == 0 and last == length - 9 and nearly_last == min(max(cut) + 8, last)
    assert len(batches.tokens) - 1 <= batches.windows * 8 <= len(batches.tokens) - 1 + 3 * 8


def epochs_targets(batches, count):
    """The positions that are targets in each of the first `count` epochs, where the tokens are 0, 1, 2, ..."""
    steps = -(-count * batches.windows // batches.batch_size)
    rows = np.concatenate([batches[step][1] for step in range(steps)])[: count * batches.windows]
    return rows.reshape(count, -1)


def test_every_token_but_the_first_is_a_target_in_every_epoch():
    for context in range(1, 12):
        for length in [*range(context + 1, 5 * context + 4), 40 * context + 3]:
            batches = Batches(np.arange(length), context, 3, seed=length)
            for targets in epochs_targets(batches, 3):
                assert set(targets) == set(range(1, length)), (length, context)


def test_every_token_of_a_text_of_any_length_is_a_target():
    hypothesis = pytest.importorskip("hypothesis")
    some = hypothesis.strategies.integers

    @hypothesis.settings(deadline=None, max_examples=300, derandomize=True)
    @hypothesis.given(context=some(1, 300), beyond=some(0, 3000), batch_size=some(1, 9), seed=some(0, 2**32))
    @hypothesis.example(context=256, beyond=443, batch_size=1, seed=0)
    def covered(context, beyond, batch_size, seed):
        length = context + 1 + beyond
        batches = Batches(np.arange(length), context, batch_size, seed)
        for targets in epochs_targets(batches, 2):
            np.testing.assert_array_equal(np.unique(targets), np.arange(1, length))

    covered()


def test_with_documents_every_token_is_a_target_before_long_and_the_ends_are_in_every_epoch(rng):
    for _ in range(60):
        lengths, context = rng.integers(1, 40, rng.integers(1, 12)), int(rng.integers(2, 24))
        documents = np.cumsum([0, *lengths + 1])  # where the end-of-text tokens stand
        length = documents[-1] + 1
        if length <= context:
            continue
        batches = Batches(np.arange(length), context, 2, seed=3, document_start=None)
        batches._documents = documents  # so that a token's value can be its place
        epochs = epochs_targets(batches, 40)
        assert set(epochs.ravel()) == set(range(1, length)), (lengths, context)
        for targets in epochs:
            assert set(targets) >= {*range(1, context + 1), *range(length - context, length)}


def test_targets_follow_ids_and_a_batch_depends_on_seed_and_step_only():
    tokens = np.arange(200, dtype=np.int32)
    batches = Batches(tokens, 8, 5, seed=1)
    ids, targets = batches[7]
    np.testing.assert_array_equal(targets, ids + 1)
    assert ids.shape == (5, 8)
    fresh = Batches(tokens, 8, 5, seed=1)
    np.testing.assert_array_equal(fresh[7][0], ids)
    assert (Batches(tokens, 8, 5, seed=2)[7][0] != ids).any()


@pytest.mark.parametrize("length", [2, 9, 10, 17, 40])
def test_an_evaluation_predicts_every_token_but_the_first_once(length):
    tokens = np.arange(100, 100 + length, dtype=np.int32)
    parts = list(evaluation_batches(tokens, 8, 2))
    ids, targets = (np.concatenate([part[i].ravel() for part in parts]) for i in (0, 1))
    kept = targets != IGNORED
    np.testing.assert_array_equal(targets[kept], tokens[1:])
    np.testing.assert_array_equal(ids[kept], tokens[:-1])


LEFT_OUT = {  # a path of a file that is no text of the author: what is passed over, and why
    ".git/notes.md": (".git", "hidden"),
    ".ipynb_checkpoints/a-checkpoint.py": (".ipynb_checkpoints", "hidden"),
    "book/.hidden.txt": ("book/.hidden.txt", "hidden"),
    "node_modules/x/readme.md": ("node_modules", "no text"),
    "book/__pycache__/x.py": ("book/__pycache__", "no text"),
    "env/lib/x.py": ("env", "a virtual environment"),
    "runs/a/config.json": ("runs/a", "a run"),
    "book/model/config.json": ("book/model", "a model"),
    "parts/config.json": ("parts", "a model"),
    "meta/params.json": ("meta", "a model"),
    "words/tokenizer.json": ("words", "a tokenizer"),
    "results/report.md": ("results", "results of an ablation"),
    "cache/corpus.json": ("cache", "an encoded text"),
}
MARKS = [
    "env/pyvenv.cfg", "runs/a/trainer.safetensors", "book/model/model.safetensors", "words/tokenizer.json",
    "parts/model-00001-of-00002.safetensors", "meta/consolidated.00.pth", "results/results-1-of-2.jsonl",
    "cache/train.npy",
]  # fmt: skip
READ = ["a.txt", "book/b.md", "book/deep/c.py", "runs/readme.md", "d.JSON"]


def test_a_folder_of_text_has_no_runs_no_environments_and_nothing_hidden(tmp_path):
    for name in [*LEFT_OUT, *MARKS, *READ, "image.png"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"text of {name} " * 20)
    paths, passed_over = corpora.text_files(tmp_path)
    assert paths == sorted(tmp_path / name for name in READ)
    assert passed_over == {tmp_path / path: why for path, why in LEFT_OUT.values()}
    text = "".join((c := read_corpus(tmp_path)).train + c.validation)
    assert all(name in text for name in READ) and not any(name in text for name in LEFT_OUT)
    said = corpora.what_is_read(tmp_path)
    assert said.startswith(f"5 text files in {tmp_path}; passed over: ") and f"{tmp_path / '.git'} (hidden)" in said
    assert said.endswith("and 5 more") and corpora.what_is_read(tmp_path / "a.txt") is None


def test_of_a_folder_that_is_a_run_itself_only_its_own_files_are_no_text(tmp_path):
    for name in ("a.txt", "config.json", "tokenizer_config.json", "trainer.safetensors", "notes.json"):
        (tmp_path / name).write_text("some text " * 20)
    paths, passed_over = corpora.text_files(tmp_path)
    assert [path.name for path in paths] == ["a.txt", "notes.json"]
    assert set(passed_over.values()) == {"a file of a run"}


def test_links_between_folders_are_named_and_not_followed(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.txt").write_text("some text " * 20)
    try:
        (tmp_path / "a" / "loop").symlink_to(tmp_path, target_is_directory=True)
        (tmp_path / "a" / "y.txt").symlink_to(tmp_path / "a" / "y.txt")  # which leads nowhere
    except OSError:
        pytest.skip("links need a right here")
    paths, passed_over = corpora.text_files(tmp_path)
    assert paths == [tmp_path / "a" / "x.txt"] and passed_over == {tmp_path / "a" / "loop": "a link to a folder"}


@pytest.mark.parametrize("out", ["runs/x", "deep/er/x", "."])
def test_a_run_within_its_own_text_can_be_resumed(out, cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("the cat sat on the mat. " * 60)
    (tmp_path / "b.md").write_text("the dog lay on the log. " * 60)
    tiny = "--tokenizer char --context 16 --dim 16 --layers 1 --heads 2 --batch-size 2 --steps 4 --threads 1".split()
    code, _, err = cli("train", "--data", ".", "--out", out, *tiny)
    assert code == 0 and "2 text files in ." in err, err
    code, _, err = cli("train", "--resume", "--out", out)
    assert code == 0 and "2 text files in .; passed over: " in err and "a run" in err, err


def test_text_that_cannot_be_used_is_refused_with_what_to_do(tmp_path):
    def refused(error, words, data, *settings):
        with pytest.raises(error, match=words):
            encode_corpus(data, *settings)

    refused(ValueError, "the name of the text is empty", "")
    refused(FileNotFoundError, "no file or folder .*missing.txt; give a UTF-8 text file", tmp_path / "missing.txt")
    (tmp_path / "empty.txt").write_text("")
    refused(ValueError, "empty.txt is empty", tmp_path / "empty.txt")
    (tmp_path / "latin.txt").write_bytes("naïve".encode("latin-1"))
    refused(ValueError, "not UTF-8: byte 0xef at position 2. Save it as UTF-8", tmp_path / "latin.txt")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "image.png").write_bytes(b"\x89PNG")
    refused(ValueError, "has no text: expected files ending in", tmp_path / "folder")
    (tmp_path / "one.txt").write_text("x")
    refused(ValueError, "has 1 characters, too few to set a tenth aside", tmp_path / "one.txt")
    (tmp_path / "a.txt").write_text("hello world")
    refused(ValueError, "tokenizer must be one of bpe, char; received 'words'", tmp_path / "a.txt", "words")
    with pytest.raises(ValueError, match="has 9 tokens and one window of context 16 needs 17"):
        Batches(encode_corpus(tmp_path / "a.txt", "char").train, 16, 1, 0)


def documents_of(lengths):
    """A stream of documents of the given lengths: 0 between them, then 1, 2, 3, ... inside each."""
    return np.concatenate([np.arange(length + 1) for length in lengths] + [[0]]).astype(np.int32)


def test_training_windows_begin_at_documents_that_are_near():
    tokens = documents_of([5, 3, 30, 2, 7, 4, 6, 5])
    batches = Batches(tokens, 10, 4, seed=0, document_start=0)
    epochs = np.concatenate([batches[step][0][:, 0] for step in range(2 * batches.windows)])  # 8 epochs
    firsts = epochs.reshape(8, -1)[:, :-3].ravel()  # the last three windows stay where the ends of the text are
    assert set(firsts) <= {0, *range(6, 31)} and (firsts == 0).mean() > 0.3
    unaligned = np.concatenate([Batches(tokens, 10, 4, seed=0)[step][0][:, 0] for step in range(30)])
    assert len(set(unaligned) & set(range(1, 6))) > 2


@pytest.mark.parametrize("lengths", [[3, 3, 3, 3], [30], [5, 3, 30, 2, 7, 4, 6, 5], [1], [9, 10, 11, 4]])
def test_evaluation_windows_begin_at_documents_and_still_predict_every_token_once(lengths):
    tokens = documents_of(lengths)
    windows = list(evaluation_batches(tokens, 10, 3, document_start=0))
    targets = np.concatenate([targets for _, targets in windows])
    kept = targets[targets != IGNORED]
    np.testing.assert_array_equal(kept, tokens[1:])
    for ids, targets in windows:
        for row, row_targets in zip(ids, targets, strict=True):
            wanted = np.flatnonzero(row_targets != IGNORED)
            np.testing.assert_array_equal(row[wanted[1:]], row_targets[wanted[:-1]])
            assert row[0] == 0 or row[0] > 5
