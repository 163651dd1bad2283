"""A head for classes: by which token a text is judged, beside a plain loop and the library transformers."""

import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import store
from safetensors.numpy import load_file, save_file

from tinygrad_llm.errors import CheckpointError, ConfigError, DataError, StateDictError
from tinygrad_llm.models import LanguageModel, build_model, describe_model, make_model
from tinygrad_llm.models.heads import (
    PolicyAndValue,
    add_classifier,
    add_score,
    check_head,
    class_logits,
    describe_head,
)
from tinygrad_llm.ops import cross_entropy
from tinygrad_llm.rng import Generator
from tinygrad_llm.weights import load_pretrained, save_pretrained
from tinygrad_llm.weights.load import load_with_tokenizer

(CASE,) = store.read("classifiers").values()
SIZES = {"vocab_size": 9, "context_length": 7, "emb_dim": 8, "n_heads": 2, "n_layers": 1, "drop_rate": 0.0}


def classifier(position="last", **changes):
    model = make_model("gpt", SIZES | changes, Generator(1)).astype(np.float64)
    add_classifier(model, ["a", "b", "c"], position, rng=Generator(2))
    return model


rows = st.lists(st.lists(st.integers(0, 8), min_size=1, max_size=7), min_size=1, max_size=4)


@given(rows, st.sampled_from(LanguageModel.positions), st.integers(0, 8))
def test_each_text_is_judged_as_if_it_were_alone(texts, position, pad_id):
    model, width = classifier(position), max(map(len, texts))
    ids, lengths = np.full((len(texts), width), pad_id), np.array([len(text) for text in texts])
    for i, text in enumerate(texts):
        ids[i, : len(text)] = text
    found = class_logits(model, ids, lengths)
    for i, text in enumerate(texts):
        read = ids[i : i + 1] if position == "padded" else np.array([text])
        scores = model(read).data[0]  # (T, K)
        expected = {"last": scores[-1], "padded": scores[-1], "first": scores[0], "mean": scores.mean(0)}[position]
        np.testing.assert_allclose(found.data[i], expected, rtol=1e-12, atol=1e-13)


def test_without_the_causal_mask_every_token_counts_at_every_position():
    model = make_model("gpt", SIZES, Generator(1)).astype(np.float64)
    add_classifier(model, ["a", "b"], "padded", causal=False, rng=Generator(2))
    assert build_model(describe_model(model)).trf_blocks[0].att.causal is False
    ids = np.array([[1, 2, 3, 4]])
    first = model(ids).data[0, 0]
    for position in (1, 2, 3):
        changed = ids.copy()
        changed[0, position] = 7
        assert abs(model(changed).data[0, 0] - first).max() > 1e-6
    with pytest.raises(ConfigError, match="causal is False and position is 'last'"):
        add_classifier(model, ["a", "b"], causal=False)


def test_scores_loss_and_every_gradient_are_those_of_transformers(tmp_path):
    arrays = {name: np.array(values, np.float64) for name, values in CASE["tensors"].items()}
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(CASE["config"]))
    model, _ = load_pretrained(tmp_path, dtype=np.float64)
    assert model.classes == ("ham", "spam", "neither")
    logits = class_logits(model, CASE["ids"], CASE["lengths"])
    np.testing.assert_allclose(logits.data, CASE["logits"], rtol=1e-10, atol=1e-10)
    loss = cross_entropy(logits, targets=CASE["labels"])
    loss.backward()
    assert loss.item() == pytest.approx(CASE["loss"], rel=1e-10)
    theirs = {name: np.array(g, np.float64) for name, g in CASE["gradients"].items()}
    np.testing.assert_allclose(model.out_head.weight.grad, theirs["score.weight"], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(model.tok_emb.weight.grad, theirs["transformer.wte.weight"], rtol=1e-10, atol=1e-12)
    fused = np.concatenate(
        [getattr(model.trf_blocks[0].att, f"W_{name}").weight.grad for name in ("query", "key", "value")]
    )
    np.testing.assert_allclose(fused.T, theirs["transformer.h.0.attn.c_attn.weight"], rtol=1e-10, atol=1e-12)

    save_pretrained(model, tmp_path / "again")
    assert json.loads((tmp_path / "again/config.json").read_text())["architectures"] == [
        "GPT2ForSequenceClassification"
    ]
    written = load_file(tmp_path / "again/model.safetensors")
    assert written.keys() == arrays.keys()
    for name, array in written.items():
        np.testing.assert_array_equal(array, arrays[name], err_msg=name)


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"0": "ham"}, "it must name the 3 classes of score.weight"),
        ({"0": "ham", "1": "spam", "2": 7}, "it must name the 3 classes"),
        (["ham", "spam", "eggs"], "it must name the 3 classes"),
        ({"0": "ham", "1": "ham", "2": "eggs"}, "all different"),
    ],
)
def test_names_that_do_not_fit_are_refused(named, message, tmp_path):
    save_file(
        {name: np.ascontiguousarray(values) for name, values in CASE["tensors"].items()}, tmp_path / "model.safetensors"
    )
    (tmp_path / "config.json").write_text(json.dumps(CASE["config"] | {"id2label": named}))
    with pytest.raises((CheckpointError, ConfigError), match=message):
        load_pretrained(tmp_path)


def test_without_names_classes_have_numbers(tmp_path):
    save_file(
        {name: np.ascontiguousarray(values) for name, values in CASE["tensors"].items()}, tmp_path / "model.safetensors"
    )
    config = {key: value for key, value in CASE["config"].items() if key != "id2label"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load_pretrained(tmp_path)[0].classes == ("LABEL_0", "LABEL_1", "LABEL_2")
    tensors = CASE["tensors"] | {"score.weight": np.ones(3)}
    save_file({name: np.ascontiguousarray(values) for name, values in tensors.items()}, tmp_path / "model.safetensors")
    with pytest.raises(StateDictError, match=re.escape("score.weight")):
        load_pretrained(tmp_path)


def test_a_classifier_writes_no_text(tmp_path):
    save_pretrained(load_classifier(tmp_path), tmp_path / "out")
    with pytest.raises(CheckpointError, match=r"a classifier \(ham, spam, neither\), which writes no text"):
        load_with_tokenizer(tmp_path / "out")


def load_classifier(folder):
    save_file(
        {name: np.ascontiguousarray(values) for name, values in CASE["tensors"].items()}, folder / "model.safetensors"
    )
    (folder / "config.json").write_text(json.dumps(CASE["config"]))
    return load_pretrained(folder)[0]


@pytest.mark.parametrize("position", ["first", "mean", "padded"])
def test_what_transformers_cannot_be_told_is_refused(position, tmp_path):
    model = classifier(position)
    with pytest.raises(ConfigError, match=f"judges by '{position}'"):
        save_pretrained(model, tmp_path / "out")
    model.position = "last"
    with pytest.raises(ConfigError, match=r"has a bias.*--no-head-bias"):
        save_pretrained(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_tied_table_stays_with_the_embedding():
    model = make_model("gpt", SIZES | {"tie_weights": True}, Generator(1))
    table = model.tok_emb.weight.data.copy()
    head = add_classifier(model, ["ham", "spam"]).out_head
    assert head.weight is not model.tok_emb.weight
    np.testing.assert_array_equal(model.tok_emb.weight.data, table)
    assert describe_head(model) == {"classes": ["ham", "spam"], "position": "last", "bias": True, "causal": True}
    assert sum(p.size for p in head.parameters()) == 2 * 8 + 2
    model.resize_vocabulary(12)
    assert head.weight.shape == (2, 8)


@pytest.mark.parametrize(
    ("classes", "position", "message"),
    [
        ([], "last", "one or more"),
        (["ham", "ham"], "last", "all different"),
        (["ham", "spam"], "end", "use one of last, padded, first, mean"),
    ],
)
def test_heads_that_cannot_be(classes, position, message):
    with pytest.raises(ConfigError, match=message):
        add_classifier(make_model("gpt", SIZES), classes, position)


@pytest.mark.parametrize("lengths", [[0, 3], [3, 8], [3]])
def test_lengths_that_cannot_be(lengths):
    with pytest.raises(DataError, match="each from 1 to 7"):
        class_logits(classifier(), np.zeros((2, 7), np.int64), np.array(lengths))


def test_a_language_model_has_no_classes():
    model = make_model("gpt", SIZES)
    assert model.classes is None
    with pytest.raises(ConfigError, match="add_classifier"):
        class_logits(model, np.zeros((1, 2), np.int64), np.array([2]))


@pytest.mark.parametrize(
    "value", [7, [], {}, {"classes": "ab"}, {"classes": ["a", 1]}, {"classes": ["a", "b"], "more": 1}]
)
def test_what_a_configuration_says_of_a_head_is_looked_at(value):
    with pytest.raises(ConfigError, match=r"^head"):
        check_head("head", value)


def test_a_score_is_one_number_of_the_last_token():
    model = add_score(make_model("gpt", SIZES, Generator(1)), rng=Generator(2)).eval()
    weight, bias = model.out_head.weight.data, model.out_head.bias.data
    assert (weight.shape, bias.shape, bias[0]) == ((1, 8), (1,), 0)
    ids = np.array([[1, 2, 3, 0], [4, 5, 0, 0]])
    lengths = np.array([3, 2])
    scores = class_logits(model, ids, lengths).data[:, 0]
    for i, n in enumerate(lengths):
        x = model.final_norm(model.features(ids[i : i + 1, :n])).data[0, -1]
        assert scores[i] == pytest.approx(float(x @ weight[0]), abs=1e-6)
    zero = add_score(make_model("gpt", SIZES, Generator(1)), zero=True)
    assert not zero(ids).data.any()


def test_a_score_begins_with_the_papers_spread():
    sizes = {**SIZES, "emb_dim": 1024, "n_heads": 1, "n_layers": 1}
    weight = add_score(make_model("gpt", sizes, Generator(1)), rng=Generator(2)).out_head.weight.data
    assert weight.std() == pytest.approx(1 / np.sqrt(1025), rel=0.1)  # 4 standard errors of 1024 draws


def test_a_policy_with_its_value_is_what_config_json_says():
    pair = PolicyAndValue(
        make_model("gpt", SIZES, Generator(1)), add_score(make_model("gpt", SIZES, Generator(2)), rng=Generator(3))
    )
    about = json.loads(json.dumps(describe_model(pair)))
    again = build_model(about, Generator(4))
    assert about["value"]["head"]["classes"] == ["score"]
    assert "head" not in about
    again.load_state_dict(pair.state_dict())
    ids = np.array([[1, 2, 3]])
    pair.eval()
    again.eval()
    np.testing.assert_array_equal(again.policy(ids).data, pair.policy(ids).data)
    np.testing.assert_array_equal(again.value(ids).data, pair.value(ids).data)
    assert again.config == pair.policy.config
    pair.set_drop_rate(0.5)
    assert pair.policy.config.drop_rate == pair.value.config.drop_rate == 0.5
