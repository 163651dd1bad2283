"""Translation: batches and their loss, what is written and where the model looks, resuming, the record, bad input."""

import json
import math
from itertools import product
from shutil import copytree, rmtree

import numpy as np
import pytest
from stopping import StopAfter

import tinygrad_llm as tg
from tinygrad_llm.cli import main
from tinygrad_llm.debug import AlignedText
from tinygrad_llm.doctor.doctor import examine
from tinygrad_llm.errors import CheckpointError, ConfigError, ConfigMismatch, ContextLengthError, DataError
from tinygrad_llm.models import make_config, make_model
from tinygrad_llm.optim import AdamW
from tinygrad_llm.rng import Generator
from tinygrad_llm.runs.checkpoint import list_checkpoints
from tinygrad_llm.runs.folder import load_config, load_run
from tinygrad_llm.runs.records import read_run
from tinygrad_llm.text import BPETokenizer
from tinygrad_llm.text.pairs import Pair
from tinygrad_llm.training import pretrain
from tinygrad_llm.training.step import train_step
from tinygrad_llm.tuning.splits import by_length
from tinygrad_llm.tuning.translate import Translating, pairs_of, resume_translation, train_tokenizer, translate
from tinygrad_llm.tuning.translate_options import TranslateOptions
from tinygrad_llm.tuning.translator import Row, Translator, collate, token_losses, write_targets
from tinygrad_llm.weights import load_pretrained, save_pretrained

ONE = ["one", "two", "three", "four", "five", "six"]
OTHER = ["eins", "zwei", "drei", "vier", "fünf", "sechs"]
SMALL = {"emb_dim": 16, "n_heads": 2, "n_layers": 1, "context_length": 12, "batch_size": 8, "eval_every": 20}
ROWS = [Row([1, 2, 3], [4, 5]), Row([6], [7, 8, 9, 1]), Row([2, 2, 3, 4, 5], [1]), Row([5, 4], [3, 2, 6])]


def quiet(line):
    pass


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Words in another language, the last first: no word stands where its translation does."""
    path = tmp_path_factory.mktemp("data") / "reversed.tsv"
    chosen = [places for n in (1, 2, 3) for places in product(range(6), repeat=n)]
    lines = (f"{' '.join(ONE[i] for i in places)}\t{' '.join(OTHER[i] for i in places[::-1])}\n" for places in chosen)
    path.write_text("".join(lines), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("runs") / "reversed"
    options = SMALL | {"emb_dim": 32, "batch_size": 32, "lr": 5e-3, "eval_every": 100, "drop_rate": 0.0}
    translate(data, out=folder, report=quiet, max_steps=400, seed=1, **options)
    return folder


@pytest.fixture
def model():
    """In float64, with dropout that evaluation leaves out."""
    sizes = {"vocab_size": 11, "context_length": 12, "emb_dim": 8, "n_heads": 2, "n_layers": 2, "drop_rate": 0.0}
    config = make_config("seq2seq", sizes | dict.fromkeys(("start_id", "end_id", "pad_id"), 10))
    return make_model("seq2seq", config, Generator(3)).astype(np.float64)


def task_of(data, **options):
    """What comes with a run of these options."""
    chosen = TranslateOptions.choose(None, **options)
    splits = pairs_of([str(data)], chosen)
    return Translating([str(data)], splits, chosen, train_tokenizer(splits.train, chosen))


def log_p(model, row):
    """Of each token of a target and of its end, (T, V), without a batch or a mask."""
    with tg.no_grad():
        logits = model(np.array([[*row.source, 10]]), np.array([[10, *row.target]])).data[0]
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


# ---- batches and their loss


def test_a_batch_is_its_pairs_filled_up(model):
    source, mask, target, labels = collate(ROWS[:2], model.config)
    assert source.tolist() == [[1, 2, 3, 10], [6, 10, 10, 10]]
    assert mask.tolist() == [[True, True, True, True], [True, True, False, False]]
    assert target.tolist() == [[10, 4, 5, 10, 10], [10, 7, 8, 9, 1]]
    assert labels.tolist() == [[4, 5, 10, -100, -100], [7, 8, 9, 1, 10]]


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_the_loss_is_the_mean_over_tokens_of_targets(share, model, data):
    """-Σ q log p with q = (1 - ε) [v = target] + ε / V, as torch has it, of one pair after the other."""
    losses, plain = [], []
    for row in ROWS:
        for p, wanted in zip(log_p(model, row), [*row.target, 10], strict=True):
            losses.append(-((1 - share) * p[wanted] + share * p.mean()))
            plain.append(-p[wanted])
    assert len(losses) == 14
    task = task_of(data, label_smoothing=share)
    batch = collate(ROWS, model.config)
    optimizer = AdamW(model.parameters(), lr=0.0)
    for parts in (1, 4):
        loss = train_step(model, optimizer, *batch, objective=task.objective, accumulate=parts)
        assert loss == pytest.approx(np.mean(losses), rel=1e-12)
    assert token_losses(model, ROWS, 3, share) == pytest.approx((np.mean(losses), np.mean(plain)), rel=1e-12)


def test_gradients_of_a_batch_are_those_of_its_pairs(model, data):
    task = task_of(data)
    optimizer = AdamW(model.parameters(), lr=0.0)
    train_step(model, optimizer, *collate(ROWS, model.config), objective=task.objective)
    together = [p.grad.copy() for p in model.parameters()]
    alone = [np.zeros_like(g) for g in together]
    for row in ROWS:
        train_step(model, optimizer, *collate([row], model.config), objective=task.objective)
        for total, p in zip(alone, model.parameters(), strict=True):
            total += p.grad * (len(row.target) + 1) / 14
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-13)


def test_pairs_of_like_length_go_together():
    rng = np.random.RandomState(0)
    order, lengths = rng.permutation(50), rng.randint(1, 30, 50)
    batches = [*by_length(order, lengths, 4, 3)]
    assert [len(batch) for batch in batches] == [4] * 12 + [2]
    for start in range(0, 50, 12):
        chunk = np.concatenate(batches[start // 4 : start // 4 + 3])
        assert sorted(chunk) == sorted(order[start : start + 12])
        assert (np.diff(lengths[chunk]) >= 0).all()
    assert np.concatenate([*by_length(order, lengths, 4, 1)]).tolist() == order.tolist()


# ---- what is written


def by_hand(model, source, most):
    """The likeliest token each time, reading all again."""
    row = Row(source, [])
    for _ in range(most):
        best = int(log_p(model, row)[-1].argmax())
        if best == 10:
            return row.target, True
        row.target.append(best)
    return row.target, False


def test_greedy_writing_is_that_of_a_plain_loop(model):
    model.out_head.weight.data[10] *= 1.7  # so that some end
    sources = [row.source for row in ROWS]
    for most in (1, 5, 11):
        found = write_targets(model, sources, most)
        assert found == [by_hand(model, source, most) for source in sources]
    assert {ended for _, ended in found} == {True, False}
    unused = [*{i for ids, _ in found for i in ids}][:2]
    assert not {*unused} & {i for ids, _ in write_targets(model, sources, 11, unused) for i in ids}


def test_scores_are_log_probabilities_over_the_length_penalty(run):
    translator = Translator.load(run)
    end = translator.model.config.end_id
    texts = ["one two three", "six", "four four"]
    for beams, penalty in ((1, 0.6), (1, 0.0), (3, 0.6), (3, 1.0)):
        for text, found in zip(texts, translator.translate(texts, beams, penalty), strict=True):
            source = translator.tokenizer.encode(text)
            with tg.no_grad():
                logits = translator.model([[*source, end]], [[end, *found.ids]]).data[0].astype(np.float64)
            p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
            n = len(found.ids) + 1
            total = p[np.arange(n), [*found.ids, end]].sum()
            assert found.ended
            assert found.score == pytest.approx(total / ((5 + n) / 6) ** penalty, abs=1e-4)
            assert translator.tokenizer.decode(found.ids) == found.text
    (cut,) = translator.translate(texts[:1], max_new_tokens=2)
    assert not cut.ended  # so its end is not in the score
    with tg.no_grad():
        logits = translator.model([[*translator.tokenizer.encode(texts[0]), end]], [[end, cut.ids[0]]]).data[0]
    p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    assert cut.score == pytest.approx(p[[0, 1], cut.ids].sum() / (7 / 6) ** 0.6, abs=1e-4)
    one, several = (translator.translate(texts, beams) for beams in (1, 6))
    assert all(b.score >= a.score - 1e-4 for a, b in zip(one, several, strict=True))


def test_a_text_is_translated_alone_as_among_others(run):
    translator = Translator.load(run)
    texts = [" ".join(words) for words in product(ONE, ONE[:2])] + ONE
    together = translator.translate(texts)
    assert [found.text for found in together] == [translator.translate([text])[0].text for text in texts]


def test_a_folder_of_transformers_translates_if_a_tokenizer_is_there(tmp_path):
    tokenizer = BPETokenizer.train(["this is a house, that is a mouse"] * 9, 270)
    sizes = {"vocab_size": tokenizer.vocab_size, "context_length": 16, "emb_dim": 8, "n_heads": 2, "n_layers": 1}
    marks = dict.fromkeys(("start_id", "end_id", "pad_id"), tokenizer.eot_id)
    model = make_model("seq2seq", {**sizes, **marks, "positions": "halves", "activation": "silu"}, Generator(4)).eval()
    save_pretrained(model, tmp_path / "with", tokenizer)
    save_pretrained(model, tmp_path / "without")
    texts = ["a house", "that mouse is a house"]
    for beams in (1, 2):
        assert Translator.load(tmp_path / "with").translate(texts, beams) == (
            Translator(model, tokenizer).translate(texts, beams)
        )
    with pytest.raises(CheckpointError, match=r"without: no tokenizer there: put tokenizer\.json"):
        Translator.load(tmp_path / "without")


# ---- a run


def test_a_run_learns_an_order_that_no_word_for_word_has(run):
    row = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    told = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    right = [each["translation"] == each["expected"] for each in told]
    assert len(told) == 27
    assert [each["exact"] for each in told] == sorted(right)
    assert row["val_exact_match"] > 0.8
    assert np.mean(right) > 0.8
    assert row["val_nll"] < 0.3 < row["val_loss"]
    assert (run / "alignment.png").stat().st_size > 1000
    assert "-> " in (run / "samples.txt").read_text()
    assert tg.runs.load_run(run)[0].predicts == "translations"
    assert not [finding for finding in examine(run) if finding.verdict == "wrong"]
    assert read_run(run).options["share"] == "all"


def test_what_is_told_of_a_run(data, tmp_path):
    lines = []
    result = translate(data, out=tmp_path / "run", report=lines.append, epochs=1, judged=10, **SMALL)
    text = "\n".join(lines)
    assert result.summary()["test"]["n"] == 10
    assert result.summary()["baselines"].keys() == {"most_frequent", "copy", "word_by_word"}
    for words in (
        "258 pairs",
        "206 pairs to train on",
        "nll is the loss",
        "exact match",
        "a word for a word",
        "the model",
    ):
        assert words in text
    assert {"train_loss", "train_nll", "val_loss", "val_nll", "val_exact_match"} <= result.metrics[-1].keys()


def test_the_vocabulary_is_that_of_the_pairs_to_train_on(tmp_path):
    """Held-out words are unknown, of which a run says so."""
    path = tmp_path / "data.tsv"
    path.write_text("".join(f"the word{i} here\tdas wort{i} hier\n" for i in range(100) for _ in range(2)))
    result = translate(path, out=tmp_path / "run", report=quiet, max_steps=1, **SMALL)
    config = load_config(tmp_path / "run")
    splits = pairs_of(config["files"], TranslateOptions.of_run(config["training"]))
    known = {token.decode().strip() for token in result.tokenizer.tokens}
    assert "hier" in known
    assert not any(f"word{i}" in known for i in range(100))  # each is in one pair alone, and so unknown
    assert len(splits.train) == 80
    with pytest.warns(RuntimeWarning, match="word3: not among the words"):
        Translator.load(tmp_path / "run").translate(["the word3 here"])


@pytest.mark.parametrize("options", [{}, {"schedule": "noam", "warmup": 10.0, "norm_first": True, "tokenizer": "char"}])
def test_a_run_that_was_interrupted_ends_with_the_same_bits(options, data, tmp_path):
    chosen = SMALL | {"epochs": 2, "examples": 60, "save_every": 5, "context_length": 20} | options
    whole = translate(data, out=tmp_path / "whole", report=quiet, **chosen)
    with pytest.raises(KeyboardInterrupt):
        translate(data, out=tmp_path / "cut", report=quiet, loggers=[StopAfter(11)], **chosen)
    resumed = resume_translation(tmp_path / "cut", report=quiet)
    for name, value in whole.model.state_dict().items():
        assert resumed.model.state_dict()[name].tobytes() == value.tobytes(), name
    for name in ("metrics.jsonl", "samples.txt", "predictions.jsonl"):
        assert (tmp_path / "cut" / name).read_text() == (tmp_path / "whole" / name).read_text(), name
    longer = resume_translation(tmp_path / "cut", report=quiet, epochs=3)
    assert longer.metrics[-1]["epoch"] == 3


def test_other_sizes_and_forms_are_those_of_the_options(data, tmp_path):
    options = SMALL | {"max_steps": 1, "hidden_dim": 24, "norm_first": True, "positions": "halves", "share": "target"}
    options |= {"tokenizer": "bpe", "vocab_size": 280, "context_length": 30}
    model = translate(data, out=tmp_path / "run", report=quiet, **options).model
    assert (model.config.hidden_width, model.config.positions, model.config.has_final_norms) == (24, "halves", True)
    assert model.config.vocab_size == 280
    assert model.src_emb is not model.tok_emb
    assert model.out_head.weight is model.tok_emb.weight
    again, _ = load_run(tmp_path / "run")
    np.testing.assert_array_equal(again.out_head.weight.data, model.out_head.weight.data)


def test_two_files_and_a_third_column(tmp_path):
    pairs = [(f"{a} {b}", f"{OTHER[i]} {OTHER[j]}") for i, a in enumerate(ONE) for j, b in enumerate(ONE)]
    (tmp_path / "one.txt").write_text("".join(a + "\n" for a, _ in pairs))
    (tmp_path / "other.txt").write_text("".join(b + "\n" for _, b in pairs), encoding="utf-8")
    credit = "CC-BY 2.0 (France) Attribution: tatoeba.org #1 (A) & #2 (B)"
    (tmp_path / "both.tsv").write_text("".join(f"{a}\t{b}\t{credit}\n" for a, b in pairs), encoding="utf-8")
    options = SMALL | {"max_steps": 2, "report": quiet}
    one = translate([tmp_path / "one.txt", tmp_path / "other.txt"], out=tmp_path / "a", **options)
    other = translate(tmp_path / "both.tsv", out=tmp_path / "b", **options)
    assert "Attribution" not in (tmp_path / "b" / "tokenizer.txt").read_text()
    for name, value in one.model.state_dict().items():
        np.testing.assert_array_equal(value, other.model.state_dict()[name])
    resumed = resume_translation(tmp_path / "a", report=quiet, max_steps=3)
    assert resumed.metrics[-1]["step"] == 3


# ---- where the model looks


def test_weights_of_attention_are_those_of_the_formula(run):
    """softmax(q kᵀ / √d) of the first layer and the first head, from the activations before it."""
    translator = Translator.load(run)
    model, text = translator.model, "one two three"
    written = translator.translate([text])[0]
    alignment = translator.align(text, written)
    assert [token.decode() for token in alignment.source] == ["one", " two", " three", "<|endoftext|>"]
    assert len(alignment.target) == len(written.ids) + 1
    assert alignment.weights.shape == (1, 2, len(alignment.target), 4)
    np.testing.assert_allclose(alignment.weights.sum(-1), 1, atol=1e-5)
    end = model.config.end_id
    source = np.array([[*translator.tokenizer.encode(text), end]])
    with tg.no_grad():
        _, cache = model.run_with_cache(source, np.array([[end, *written.ids]]), names="decoder.0.*")
        memory, cross = model.encode(source).data[0], model.decoder[0].cross_att
    x = cache["decoder.0.norm1"][0]
    q, k = (a @ w.weight.data.T + w.bias.data for a, w in ((x, cross.W_query), (memory, cross.W_key)))
    scores = q[:, :16] @ k[:, :16].T / 4  # of the first of 2 heads, 16 wide
    p = np.exp(scores - scores.max(-1, keepdims=True))
    np.testing.assert_allclose(alignment.weights[0, 0], p / p.sum(-1, keepdims=True), atol=1e-5)
    np.testing.assert_array_equal(cache["decoder.0.cross_att.weights"], alignment.weights[:1].reshape(1, 2, -1, 4))
    np.testing.assert_allclose(alignment.of(), alignment.weights[0].mean(0))
    np.testing.assert_array_equal(alignment.of(1, 2), alignment.weights[0, 1])
    with pytest.raises(ConfigError, match="head is 3: the decoder has 2"):
        alignment.of(head=3)
    same = translator.align(text, written.text)
    np.testing.assert_array_equal(same.weights, alignment.weights)


def test_steps_of_the_backward_have_names(model):
    source, mask, target, labels = collate(ROWS, model.config)
    loss = tg.ops.cross_entropy(model(source, target, mask), targets=labels)
    names = {step.name for step in loss.backward_steps()}
    assert {f"{stack}.{i}.att.attention#1" for stack in ("encoder", "decoder") for i in (0, 1)} <= names
    assert {
        "decoder.0.cross_att.attention#1",
        "decoder.1.cross_att.W_key.linear#1",
        "encoder.1.norm2.layer_norm#1",
    } <= names


def test_a_report_shows_where_it_looked(run, tmp_path, capsys):
    page = tmp_path / "report.html"
    assert main(["report", str(run), "-o", str(page), "--json"]) == 0
    island = json.loads(page.read_text().split('id="data">')[1].split("</script>")[0])
    assert len(island["alignments"]) == 3
    first = island["alignments"][0]
    told = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()[:3]]
    assert [each["title"] for each in island["alignments"]] == [f"{t['source']} → {t['translation']}" for t in told]
    assert [layer["layer"] for layer in first["attention"]] == ["decoder.0.cross_att"]
    assert len(first["attention"][0]["heads"]) == 3
    model, tokenizer = load_pretrained(run)
    source, end = tokenizer.encode(told[0]["source"]), model.config.end_id
    target = tokenizer.encode(told[0]["expected"])
    with tg.no_grad():
        wanted = tg.ops.cross_entropy(model([[*source, end]], [[end, *target]]), targets=np.array([[*target, end]]))
    assert json.loads(capsys.readouterr().out)["loss"] == pytest.approx(wanted.item(), rel=1e-5)
    assert main(["report", str(run), "--prompt", "one two", "-o", str(page)]) == 0
    assert main(["report", str(run), "--answer", "zwei", "-o", str(page)]) == 2
    assert "it goes with a --prompt, the source" in capsys.readouterr().err


def test_long_texts_are_cut_in_a_report():
    weights = np.full((6, 16, 200, 90), 1 / 90)
    told = AlignedText("t", "about.", ["a"] * 90, ["b"] * 200, [f"l{i}" for i in range(6)], weights).to_dict()
    n = math.isqrt(200_000 // (6 * 17))
    assert (len(told["source"]), len(told["target"])) == (n, n)
    assert told["about"] == f"about. The first {n} tokens of either text are shown."
    with pytest.raises(tg.errors.ShapeError, match=r"must be \(6, heads, 200, 91\)"):
        AlignedText("t", "", ["a"] * 91, ["b"] * 200, ["l"] * 6, weights)


# ---- bad input


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("a\t\nb\tc\n", "line 1: the target is empty"),
        ("a\tb\tc\td\n", "line 1 has 4 columns"),
        ("a b\n", "has no tab"),
        ("a\tb\nc\td\n", "of 2 sources none is left"),
    ],
)
def test_files_that_cannot_be(lines, message, tmp_path):
    (tmp_path / "data.tsv").write_text(lines)
    with pytest.raises(DataError, match=message):
        translate(tmp_path / "data.tsv", out=tmp_path / "run", report=quiet)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"context_length": 2}, DataError, "no pair to validate with|no pair to train on"),
        ({"emb_dim": 15}, ConfigError, "n_heads 2 does not divide emb_dim 15"),
        ({"label_smoothing": 1.0}, ConfigError, "label_smoothing"),
        ({"share": "some"}, ConfigError, "use one of all, target, none"),
        ({"tokenizer": "gpt2"}, ConfigError, "use one of word, bpe, char"),
        ({"init_from": "x"}, (ConfigError, TypeError), "init_from"),
        ({"train": "head"}, ConfigError, "train must be 'all'"),
    ],
)
def test_options_that_cannot_be(options, error, message, data, tmp_path):
    with pytest.raises(error, match=message):
        translate(data, out=tmp_path / "run", report=quiet, **SMALL | options)
    assert not (tmp_path / "run").exists()


def test_a_character_that_was_not_learned_is_told_before_training(tmp_path):
    (tmp_path / "data.tsv").write_text("".join(f"{chr(0x4E00 + i)}\t{chr(0x4E00 + i)}\n" for i in range(40)))
    with pytest.raises(DataError, match=r"a pair that is kept from training: .* take another tokenizer"):
        translate(tmp_path / "data.tsv", out=tmp_path / "run", report=quiet, tokenizer="char", **SMALL)


def test_longer_pairs_are_left_out(data, tmp_path):
    lines = []
    result = translate(data, out=tmp_path / "run", report=lines.append, max_steps=1, **SMALL | {"context_length": 3})
    assert result.longer == 216
    assert any("216 pairs are left out" in line for line in lines)
    assert any(each["translation"] == "" for each in result.wrong)


def test_texts_that_cannot_be_translated(run):
    translator = Translator.load(run)
    with pytest.raises(ContextLengthError, match="13 tokens with the mark at its end, the positions are 12"):
        translator.translate([" ".join(["one"] * 12)])
    with pytest.raises(DataError, match="text 2 is empty"):
        translator.translate(["one", " "])
    with pytest.raises(DataError, match="pass a list of texts"):
        translator.translate("one")


def test_a_run_of_another_task(run, tmp_path):
    sizes = {"tokenizer": "char", "context_length": 8, "emb_dim": 8, "n_heads": 2, "n_layers": 1}
    pretrain(out=tmp_path / "story", report=quiet, max_steps=1, **sizes)
    with pytest.raises(CheckpointError, match=r"gpt\) that does not translate"):
        Translator.load(tmp_path / "story")
    with pytest.raises(CheckpointError, match="only 'translate' goes on here"):
        resume_translation(tmp_path / "story", report=quiet)
    with pytest.raises(ConfigMismatch, match="emb_dim: 32 there, 16 here"):
        resume_translation(run, report=quiet, emb_dim=16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"files": ["a", "b", "c"]}, "files and data do not say"),
        ({"data": {"pairs": "0"}}, "not the texts any more"),
        ({"training": {"share": 3}}, "share"),
        ({"model": {"vocab_size": -1}}, "vocab_size"),
    ],
)
def test_a_stranger_s_record(change, message, run, tmp_path):
    copytree(run, tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    config = json.loads(path.read_text())
    for name, value in change.items():
        config[name] = config[name] | value if isinstance(value, dict) else value
    path.write_text(json.dumps(config))
    with pytest.raises(tg.errors.TinygradLLMError, match=message):
        resume_translation(tmp_path / "run", report=quiet, max_steps=500)


def test_without_a_checkpoint_the_command_to_begin_again_is_told(data, run, tmp_path):
    copytree(run, tmp_path / "run")
    for folder in list_checkpoints(tmp_path / "run"):
        rmtree(folder)
    with pytest.raises(CheckpointError, match=f"begin it again \\(tinygrad-llm translate {data}"):
        resume_translation(tmp_path / "run", report=quiet, max_steps=500)


def test_pairs_of_what_comes_with_the_package():
    splits = pairs_of(["phrases"], TranslateOptions.choose(None, examples=300))
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (300, 1000, 2000)
    assert not {pair.source for pair in splits.train} & {pair.source for pair in splits.test}
    assert all(isinstance(pair, Pair) for pair in splits.test)
