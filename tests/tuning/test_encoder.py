"""A BERT at work: candidates for a hidden word, vectors of texts, a classifier made of it; and what is refused in one line."""

import json
import os

import numpy as np
import pytest

from tinygrad_llm.cli import main
from tinygrad_llm.errors import CheckpointError, ConfigError, ContextLengthError, DataError
from tinygrad_llm.models import make_model
from tinygrad_llm.models.heads import add_classifier
from tinygrad_llm.nn.lora import lora_of
from tinygrad_llm.rng import Generator
from tinygrad_llm.runs.folder import FORMAT, new_run, save_model
from tinygrad_llm.text import CharTokenizer, WordPieceTokenizer
from tinygrad_llm.text.wordpiece import MARKS
from tinygrad_llm.tuning.classify import Classifier, classify, evaluate_classifier, resume_classification
from tinygrad_llm.tuning.encoder import Encoder, nearest
from tinygrad_llm.tuning.predict import score_texts

PIECES = [
    *MARKS,
    *"abcdefghijklmnopqrstuvwxyz.!?",
    *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz"),
    "una",
    "took",
    "the",
]
SIZES = {"context_length": 16, "emb_dim": 12, "n_heads": 2, "n_layers": 2, "hidden_dim": 16, "drop_rate": 0.0}


def save_run(folder, model, tokenizer):
    config = {"format": FORMAT, "architecture": model.architecture, "model": model.config.to_dict(), "task": "masked_words",
              "training": {}, "files": [], "data": {}}  # fmt: skip
    with new_run(folder, config, tokenizer):
        save_model(folder, model)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    tokenizer = WordPieceTokenizer(PIECES)
    model = make_model(
        "bert", {"vocab_size": tokenizer.vocab_size, "init": "pytorch", "tie_weights": False, **SIZES}, Generator(1)
    )
    return save_run(tmp_path_factory.mktemp("encoder") / "run", model, tokenizer)


@pytest.fixture(scope="module")
def encoder(folder):
    return Encoder.load(folder)


# ---- hidden words


def test_candidates_are_the_likeliest_words_at_the_mask(encoder):
    tokenizer, model = encoder.tokenizer, encoder.model
    found = encoder.candidates("Una [MASK] the lamp.", 7)
    ids = [
        tokenizer.cls_id,
        *tokenizer.encode("una"),
        tokenizer.mask_id,
        *tokenizer.encode("the lamp."),
        tokenizer.sep_id,
    ]
    scores = model(np.array([ids])).data[0, 2].astype(np.float64)
    p = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
    best = sorted(range(len(p)), key=lambda i: -p[i])[:7]
    assert [token for token, _ in found] == [PIECES[i] for i in best]
    np.testing.assert_allclose([probability for _, probability in found], p[best], rtol=1e-6)
    assert len(encoder.candidates("[MASK]")) == 5
    assert sum(p for _, p in encoder.candidates("[MASK]", 10**6)) == pytest.approx(1)


@pytest.mark.parametrize(
    ("text", "top", "error", "message"),
    [
        ("una took", 5, DataError, "has no .MASK.: put one where the hidden word is"),
        ("[mask]", 5, DataError, "has no .MASK."),
        ("[MASK] took [MASK]", 5, DataError, "has 2 .MASK."),
        ("una " * 15 + "[MASK]", 5, ContextLengthError, "has 18 tokens with its marks, the model reads 16"),
        ("[MASK]", 0, ConfigError, "top is 0"),
    ],
)
def test_texts_without_one_mask_are_refused(encoder, text, top, error, message):
    with pytest.raises(error, match=message) as caught:
        encoder.candidates(text, top)
    assert "\n" not in str(caught.value)


def test_models_without_that_head_or_tokenizer_are_refused(encoder, tmp_path):
    config = {"vocab_size": len(PIECES), **SIZES}
    bare = make_model("bert", config | {"masked_words": False})
    with pytest.raises(ConfigError, match="no head for hidden words"):
        Encoder(bare, encoder.tokenizer).candidates("[MASK]")
    classifier = add_classifier(make_model("bert", config), ["a", "b"])
    with pytest.raises(ConfigError, match="no head for hidden words"):
        Encoder(classifier, encoder.tokenizer).candidates("[MASK]")
    gpt = make_model("gpt", {"vocab_size": 9, "context_length": 4, "emb_dim": 4, "n_heads": 1, "n_layers": 1})
    with pytest.raises(CheckpointError, match=r"x: a model \(gpt\) that does not read texts from both sides"):
        Encoder.of(gpt, None, "x")
    with pytest.raises(CheckpointError, match="no tokenizer there"):
        Encoder.of(bare, None, "x")
    with pytest.raises(CheckpointError, match="its tokenizer is char"):
        Encoder.of(bare, CharTokenizer.train("abc"), "x")


# ---- vectors


def test_vectors_are_means_of_length_one_whatever_else_is_embedded(encoder):
    texts = ["una", "una took the lamp", "the", "x y z", "una took"] * 15
    found = encoder.embed(texts)
    assert found.shape == (75, 12)
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-6)
    tokenizer, model = encoder.tokenizer, encoder.model
    for i in (0, 1, 3):
        ids = [tokenizer.cls_id, *tokenizer.encode(texts[i]), tokenizer.sep_id]
        mean = model.features(np.array([ids])).data[0].mean(0)
        np.testing.assert_allclose(found[i], mean / np.linalg.norm(mean), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found[5:10], found[:5], atol=1e-6)


def test_nearest_are_those_of_the_largest_cosine():
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(20, 4))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = nearest(vectors, vectors[3], 4)
    cosines = [float(sum(a * b for a, b in zip(row, vectors[3], strict=True))) for row in vectors]
    assert [i for i, _ in found] == sorted(range(20), key=lambda i: -cosines[i])[:4]
    assert found[0] == (3, pytest.approx(1))


def test_the_command_embed(folder, tmp_path, capsys):
    lines = ["una took the lamp.", "a b c", "the " * 40]
    (tmp_path / "texts.txt").write_text("\n".join(lines))
    out = tmp_path / "vectors.npy"
    argv = ["embed", str(folder), str(tmp_path / "texts.txt"), "--out", str(out), "--query", "una took", "--top", "2"]
    assert main([*argv, "--json"]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out.splitlines()[-1])
    vectors = np.load(out, allow_pickle=False)
    np.testing.assert_array_equal(vectors, Encoder.load(folder).embed(lines))
    assert (found["texts"], found["width"], found["cut"], found["out"]) == (3, 12, 1, str(out))
    assert "1 of 3 texts are longer than 14 tokens" in captured.err
    assert [hit["text"] for hit in found["nearest"]] == [lines[hit["line"] - 1] for hit in found["nearest"]]
    assert found["nearest"][0]["cosine"] >= found["nearest"][1]["cosine"]
    assert main(argv) == 0
    assert "line 1: una" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("una\n\nthe\n", ["--out", "v.npy"], "texts.txt: line 2: no token there"),
        ("", ["--out", "v.npy"], "texts.txt: empty"),
        (None, ["--out", "v.npy"], "texts.txt: cannot be read"),
        (b"\xff\xfe\xfa", ["--out", "v.npy"], "texts.txt"),
        ("una", [], "say where the vectors go"),
        ("una", ["--out", "no/such/v.npy"], "v.npy: cannot be written"),
        ("una", ["--out", "."], "is a folder"),
        ("una", ["--query", ""], "--query '': no token there"),
        ("una", ["--query", "una", "--top", "0"], "--top is 0"),
    ],
)
def test_what_embed_refuses(folder, tmp_path, monkeypatch, capsys, content, options, message):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / "texts.txt").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert main(["embed", str(folder), "texts.txt", *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "v.npy").exists()


def test_the_command_predict(folder, capsys):
    assert main(["predict", str(folder), "una [MASK] the lamp.", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {
        "candidates": [
            {"token": token, "probability": p} for token, p in Encoder.load(folder).candidates("una [MASK] the lamp.")
        ]
    }
    assert main(["predict", str(folder), "[MASK] a", "[MASK] b", "--top", "2", "--json"]) == 0
    assert [len(each["candidates"]) for each in json.loads(capsys.readouterr().out)["predictions"]] == [2, 2]
    assert main(["predict", str(folder), "una [MASK]"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 6
    for options in (["no mask"], ["[MASK] a", "--explain"], ["[MASK]", "--beams", "2"], ["[MASK]", "--top", "0"]):
        assert main(["predict", str(folder), *options]) == 2
        assert capsys.readouterr().err.count("\n") == 1


# ---- a classifier


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    path = tmp_path_factory.mktemp("labelled") / "data.tsv"
    rng = np.random.default_rng(1)
    letters = list("abcdefgh")

    def text(i, kind):
        return f"{' '.join(rng.choice(letters, 5))} {'z' if kind == 'yes' else 'y'} {i % 7}"

    rows = [(kind, text(i, kind)) for i, kind in enumerate(["yes", "no"] * 60)]
    path.write_text("".join(f"{label}\t{text}\n" for label, text in rows))
    return path


@pytest.mark.parametrize("how", [{"train": "all"}, {"train": "last_block"}, {"train": "head"}, {"lora": "r=2,alpha=4"}])
def test_a_classifier_of_a_bert(folder, labelled, tmp_path, how, capsys):
    options = {"epochs": 2, "batch_size": 16, "report": lambda _: None, "keep_duplicates": True}
    result = classify(labelled, init_from=folder, out=tmp_path / "run", **options, **how)
    classifier = Classifier.load(tmp_path / "run")
    assert classifier.model.position == "pooled"
    assert classifier.classes == ("no", "yes")
    learned = {name.split(".")[0] for name, p in result.model.named_parameters() if p.requires_grad}
    expected = {
        "all": {"tok_emb", "pos_emb", "seg_emb", "emb_norm", "trf_blocks", "pooler", "out_head"},
        "last_block": {"trf_blocks", "pooler", "out_head"},
        "head": {"out_head"},
        None: {"trf_blocks", "out_head"},
    }[how.get("train")]
    assert learned == expected
    if "lora" in how:
        assert lora_of(classifier.model) is not None
    tokenizer = classifier.tokenizer
    (row,) = classifier.rows(["una took " + "the " * 30])
    assert len(row) == classifier.max_length
    assert (row[0], row[-1]) == (tokenizer.cls_id, tokenizer.sep_id)
    assert classifier.pad_id == tokenizer.pad_id
    rows = classifier.rows(["a", "a b c d e z"])
    together = score_texts(classifier.model, rows, classifier.pad_id)
    alone = [score_texts(classifier.model, [each], classifier.pad_id)[0] for each in rows]
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)  # what fills up says nothing
    explained = classifier.explain("a z")
    assert explained.tokens[0] == b"[CLS]"
    assert len(explained.shares) == len(explained.ids) == 4
    _name, scores = evaluate_classifier(tmp_path / "run")
    assert scores.accuracy == result.test.accuracy
    more = resume_classification(tmp_path / "run", epochs=3, report=lambda _: None)
    assert more.metrics[-1]["epoch"] == 3
    assert main(["predict", str(tmp_path / "run"), "a z", "--explain", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tokens"][0]["token"] == "[CLS]"


def test_a_bert_learns_to_tell_classes(folder, labelled, tmp_path):
    options = {"epochs": 8, "batch_size": 16, "lr": 1e-2, "train": "all", "drop_rate": 0.0, "report": lambda _: None}
    assert classify(labelled, init_from=folder, out=tmp_path / "run", **options).test.accuracy > 0.9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"position": "last"}, "position is 'last': use one of pooled"),
        ({"max_length": 2}, "max_length is 2: a text stands between"),
        ({"max_length": 17}, "max_length is 17: the model reads 16 tokens"),
        ({"causal": False}, "causal is False and position is 'pooled'"),
        ({"emb_dim": 8}, "emb_dim is 8: with init_from"),
    ],
)
def test_what_a_classifier_of_a_bert_refuses(folder, labelled, tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        classify(labelled, init_from=folder, out=tmp_path / "run", epochs=1, report=lambda _: None, **options)
    assert not os.path.exists(tmp_path / "run")
