"""BERTs made elsewhere become our model, and back: against values of transformers."""

import copy
import json
import re
from contextlib import nullcontext

import numpy as np
import pytest
from formats.pytorch_writer import write_checkpoint as write_pytorch
from reference import store
from safetensors.numpy import load_file, save_file
from weights.published import arrays_of, config_of, filled, write

import tinygrad_llm as tg
from tinygrad_llm.cli import main
from tinygrad_llm.errors import CheckpointError, ConfigError, StateDictError
from tinygrad_llm.models import make_model
from tinygrad_llm.models.heads import add_classifier, class_logits
from tinygrad_llm.nn import Embedding
from tinygrad_llm.ops import cross_entropy
from tinygrad_llm.rng import Generator
from tinygrad_llm.text import CharTokenizer, WordPieceTokenizer
from tinygrad_llm.tuning import lora
from tinygrad_llm.weights import convert, load_pretrained, save_pretrained

CASES = store.read("berts")
IDS = np.array([[5, 1, 7, 5, 10, 3], [1, 4, 3, 9, 2, 8]])
MASK = np.array([[True] * 6, [True] * 4 + [False] * 2])

# What each of our modules is called by transformers, written down a second time, for the tests alone.
IN_A_LAYER = {
    "att.W_query": "attention.self.query",
    "att.W_key": "attention.self.key",
    "att.W_value": "attention.self.value",
    "att.out_proj": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "ff.layers.0": "intermediate.dense",
    "ff.layers.2": "output.dense",
    "norm2": "output.LayerNorm",
}
ONCE = {
    "tok_emb": "bert.embeddings.word_embeddings",
    "pos_emb": "bert.embeddings.position_embeddings",
    "seg_emb": "bert.embeddings.token_type_embeddings",
    "emb_norm": "bert.embeddings.LayerNorm",
    "pooler": "bert.pooler.dense",
    "transform.dense": "cls.predictions.transform.dense",
    "transform.norm": "cls.predictions.transform.LayerNorm",
    "out_head": "cls.predictions.decoder",
    "next_sentence": "cls.seq_relationship",
}
WORDS, BOTH, CLASSES = "hidden words", "hidden words and what follows", "classes"


def their_name(name, model):
    """The bias of the head for words has a name of its own, where nothing else is the head's."""
    module, _, kind = name.rpartition(".")
    kind = {"scale": "weight", "shift": "bias"}.get(kind, kind)
    if module == "out_head" and model.classes is not None:
        return f"classifier.{kind}"
    if name == "out_head.bias" and model.config.tie_weights:
        return "cls.predictions.bias"
    if module in ONCE:
        found = f"{ONCE[module]}.{kind}"
    else:
        _, i, part = module.split(".", 2)
        found = f"bert.encoder.layer.{i}.{IN_A_LAYER[part]}.{kind}"
    bare = model.classes is None and not model.config.masked_words and not model.config.next_sentence
    return found.removeprefix("bert.") if bare else found


def publish(folder, name):
    return write(folder, arrays_of(CASES[name]), config_of(CASES[name]))


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


@pytest.fixture
def published(tmp_path):
    return publish(tmp_path / "published", BOTH)


def random_bert(dtype=np.float32, seed=3, **changes):
    sizes = {"vocab_size": 11, "context_length": 9, "emb_dim": 8, "n_heads": 2, "n_layers": 2, "hidden_dim": 6}
    return filled(make_model("bert", sizes | changes, Generator(seed)), dtype, seed)


def outputs(model):
    """Everything that it makes of two texts."""
    with tg.no_grad():
        x = model.features(IDS, IDS % 2, MASK)
        found = {"features": x.data}
        if model.pooler is not None:
            found["pooled"] = model.pool(x).data
        if model.out_head is not None:
            found["head"] = model(IDS, IDS % 2, MASK).data
        if model.next_sentence is not None:
            found["follows"] = model.next_sentence(model.pool(x)).data
    return found


def same(model, reference):
    ours, theirs = model.state_dict(), reference.state_dict()
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name], strict=True, err_msg=name)
    one, other = outputs(model), outputs(reference)
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], strict=True, err_msg=name)


# ---- transformers


@pytest.mark.parametrize("way", [nullcontext, tg.composed], ids=["fused", "composed"])
def test_outputs_loss_and_every_gradient_are_those_of_transformers(case, way, tmp_path):
    model, tokenizer = load_pretrained(write(tmp_path / "a", arrays_of(case), config_of(case)), dtype=np.float64)
    assert (model.architecture, tokenizer, model.training) == ("bert", None, False)
    labels, g = case["labels"], {name: np.array(values) for name, values in case["g"].items()}
    with way():
        x = model.features(case["ids"], case["segments"], case["mask"])
        found = {"last_hidden_state": x} if g else {"logits": model(case["ids"], case["segments"], case["mask"])}
        if g:
            found["pooler_output"] = model.pool(x)
            loss = sum((found[name] * values).sum() for name, values in g.items())
        else:
            loss = cross_entropy(found["logits"], targets=labels["labels"])
        if "next_sentence_label" in labels:
            found = {
                "prediction_logits": found["logits"],
                "seq_relationship_logits": model.next_sentence(model.pool(x)),
            }
            loss = loss + cross_entropy(found["seq_relationship_logits"], targets=labels["next_sentence_label"])
    assert found.keys() == case["outputs"].keys()
    for name, output in found.items():
        np.testing.assert_allclose(output.data, case["outputs"][name], rtol=1e-10, atol=1e-10, err_msg=name)
    np.testing.assert_allclose(float(loss.data), case["loss"], rtol=1e-10)
    loss.backward()
    parameters = {their_name(name, model): p for name, p in model.named_parameters()}
    assert parameters.keys() == case["gradients"].keys()
    for name, parameter in parameters.items():
        expected = np.array(case["gradients"][name])
        np.testing.assert_allclose(parameter.grad, expected, rtol=1e-10, atol=1e-10, err_msg=name)


def test_it_comes_back_as_it_was_published(case, tmp_path):
    model = load_pretrained(write(tmp_path / "a", arrays_of(case), config_of(case)), dtype=np.float64)[0]
    save_pretrained(model, tmp_path / "b")
    stored, published = load_file(tmp_path / "b/model.safetensors"), arrays_of(case)
    assert stored.keys() == published.keys()
    if "cls.predictions.decoder.bias" in published:  # of which the other is a copy that nothing reads
        published["cls.predictions.bias"] = published["cls.predictions.decoder.bias"]
    for name, array in published.items():
        np.testing.assert_array_equal(stored[name], array, strict=True, err_msg=name)
    written, config = json.loads((tmp_path / "b/config.json").read_text()), config_of(case)
    if model.classes is None:
        config.pop("id2label", None)
    assert {key: written.get(key) for key in config} == config
    loaded = load_pretrained(tmp_path / "b", np.float64)[0]
    assert loaded.config == model.config
    same(loaded, model)


def older(arrays):
    """As files were written years ago, which were made of TensorFlow's."""
    found = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): array
        for name, array in arrays.items()
    }
    found |= {"cls.predictions.decoder.weight": found["bert.embeddings.word_embeddings.weight"]}
    return found | {"bert.embeddings.position_ids": np.arange(9)[None]}


def test_older_files_have_other_names_and_the_head_a_second_time(published, tmp_path):
    arrays = older(arrays_of(CASES[BOTH]))
    expected = load_pretrained(published, np.float64)[0]
    for i, wrapper in enumerate(("", "module.", "_orig_mod.", "_orig_mod.module.")):
        folder = write(tmp_path / str(i), {wrapper + name: a for name, a in arrays.items()}, config_of(CASES[BOTH]))
        loaded, _, report = load_pretrained(folder, np.float64, report=True)
        same(loaded, expected)
        assert "BERT, older names of transformers" in str(report)
        assert {name.removeprefix(wrapper) for name in report.ignored} == {
            "bert.embeddings.position_ids",
            "cls.predictions.decoder.weight",
        }
    new = arrays_of(CASES[BOTH])
    bias = new["cls.predictions.bias"]
    twice = write(tmp_path / "twice", new | {"cls.predictions.decoder.bias": bias}, config_of(CASES[BOTH]))
    loaded, _, report = load_pretrained(twice, np.float64, report=True)
    same(loaded, expected)
    assert (report.ignored, report.notes) == (["cls.predictions.decoder.bias"], [])
    new["cls.predictions.decoder.bias"] = new.pop("cls.predictions.bias")
    same(load_pretrained(write(tmp_path / "moved", new, config_of(CASES[BOTH])), np.float64)[0], expected)


def test_a_pickle_is_converted(published, tmp_path):
    arrays = {name: array.astype(np.float32) for name, array in older(arrays_of(CASES[BOTH])).items()}
    write_pytorch(tmp_path / "pytorch_model.bin", arrays)
    (tmp_path / "config.json").write_text(CASES[BOTH]["config"])
    with pytest.warns(RuntimeWarning, match="a pickle"):
        convert(tmp_path / "pytorch_model.bin", tmp_path / "out")
    same(load_pretrained(tmp_path / "out")[0], load_pretrained(published)[0])


def test_of_two_biases_the_one_that_transformers_adds_is_read(published):
    arrays = arrays_of(CASES[BOTH])
    arrays["cls.predictions.decoder.bias"] = 1 - arrays["cls.predictions.bias"]
    write(published, arrays)
    loaded, _, report = load_pretrained(published, np.float64, report=True)
    np.testing.assert_array_equal(loaded.out_head.bias.data, arrays["cls.predictions.decoder.bias"])
    assert "cls.predictions.bias differs from cls.predictions.decoder.bias" in str(report)


def test_a_head_that_differs_has_weights_of_its_own(published):
    arrays = arrays_of(CASES[BOTH])
    arrays["cls.predictions.decoder.weight"] = 2 * arrays["bert.embeddings.word_embeddings.weight"]
    write(published, arrays)
    loaded, _, report = load_pretrained(published, np.float64, report=True)
    assert not loaded.config.tie_weights
    np.testing.assert_array_equal(loaded.out_head.weight.data, 2 * loaded.tok_emb.weight.data)
    assert "the head has weights of its own" in str(report)


HEADS = {
    "BertModel": ("pooler.",),
    "BertForMaskedLM": ("cls.predictions.",),
    "BertForPreTraining": ("pooler.", "cls.predictions.", "cls.seq_relationship."),
    "BertForNextSentencePrediction": ("pooler.", "cls.seq_relationship."),
}


@pytest.mark.parametrize("kind", [None, *HEADS])
def test_the_heads_are_those_whose_tensors_are_there(kind, published, tmp_path):
    """Of one file, which has all of them, those that a class of transformers does not have are left out."""
    parts = HEADS.get(kind, ())
    arrays = {
        name.removeprefix("bert." if kind == "BertModel" else ""): array
        for name, array in arrays_of(CASES[BOTH]).items()
        if not re.match(r"cls\.|bert\.pooler\.", name) or any(part in name for part in parts)
    }
    config = config_of(CASES[BOTH]) | {"architectures": [kind]}
    if kind is None:
        del config["architectures"]
    loaded = load_pretrained(write(tmp_path / "a", arrays, config), np.float64)[0]
    found = outputs(loaded)
    assert found.keys() - {"features"} == {
        name
        for name, part in {"pooled": "pooler.", "head": "cls.predictions.", "follows": "cls.seq_relationship."}.items()
        if part in parts
    }
    expected = outputs(load_pretrained(published, np.float64)[0])
    for name, array in found.items():
        np.testing.assert_array_equal(array, expected[name])
    save_pretrained(loaded, tmp_path / "b")
    assert json.loads((tmp_path / "b/config.json").read_text())["architectures"] == [kind or "BertModel"]
    again = load_file(tmp_path / "b/model.safetensors")
    bare = {name.removeprefix("bert.") for name in arrays}
    assert again.keys() == (bare if kind is None else set(arrays))  # without heads, there is nothing to tell it from
    same(load_pretrained(tmp_path / "b", np.float64)[0], loaded)


@pytest.mark.parametrize(
    ("kind", "lost", "message"),
    [
        ("BertForPreTraining", "pooler|seq_rel", "BertForPreTraining in config.json, which has pooler.dense.weight, "),
        ("BertForMaskedLM", "cls.predictions", "BertForMaskedLM .*, which has cls.predictions.transform.dense.weight, "),
        ("BertForNextSentencePrediction", "seq_rel", "which has cls.seq_relationship.weight, cls.seq_relationship.bias, and"),
        ("BertForSequenceClassification", "cls.|pooler", "BertForSequenceClassification .*, which has pooler.dense.weight"),
        ("BertForPreTraining", "cls.predictions.bias", r"missing cls.predictions.bias \(11,\)"),
        ("BertForPreTraining", "pooler.dense.bias", r"missing pooler.dense.bias \(6,\)"),
        (None, "pooler", r"missing pooler.dense.weight \(6, 6\)"),  # on which the head for two texts stands
    ],
)  # fmt: skip
def test_a_file_that_lacks_what_it_says_it_is(kind, lost, message, published):
    arrays = {name: a for name, a in arrays_of(CASES[BOTH]).items() if not re.search(lost, name)}
    write(published, arrays, config_of(CASES[BOTH]) | {"architectures": kind and [kind]})
    with pytest.raises(StateDictError, match=message) as caught:
        load_pretrained(published)
    assert str(caught.value).startswith(str(published))


def test_every_option_of_ours_comes_back(tmp_path):
    for i, changes in enumerate((
        {"activation": "gelu", "hidden_dim": None, "norm_eps": 1e-3},
        {"activation": "relu", "tie_weights": False, "n_segments": 3},
        {"activation": "silu", "pooler": False, "next_sentence": False, "drop_rate": 0.2},
        {"masked_words": False, "next_sentence": False, "n_segments": 4},
        {"masked_words": False},
        {"next_sentence": False},  # with a pooler that nothing but classes would stand on
    )):  # fmt: skip
        model = random_bert(**changes)
        save_pretrained(model, tmp_path / str(i))
        loaded = load_pretrained(tmp_path / str(i))[0]
        same(loaded, model)
        assert loaded.config == model.config


# ---- classes


def test_a_classifier_goes_both_ways(tmp_path):
    for i, (bias, changes) in enumerate(((True, {}), (False, {}), (True, {"masked_words": False}))):
        model = add_classifier(random_bert(**changes), ["ham", "spam", "eggs"], bias=bias, rng=Generator(1))
        save_pretrained(model, tmp_path / str(i), CharTokenizer.train("abc"))
        config = json.loads((tmp_path / str(i) / "config.json").read_text())
        assert config["architectures"] == ["BertForSequenceClassification"]
        assert config["id2label"] == {"0": "ham", "1": "spam", "2": "eggs"}
        stored = load_file(tmp_path / str(i) / "model.safetensors")
        assert (stored["classifier.weight"].shape, stored["classifier.bias"].shape) == ((3, 8), (3,))
        assert not [name for name in stored if name.startswith("cls.")]
        loaded = load_pretrained(tmp_path / str(i))[0]
        assert (loaded.classes, loaded.position) == (("ham", "spam", "eggs"), "pooled")
        lengths = np.array([6, 4])
        np.testing.assert_array_equal(class_logits(loaded, IDS, lengths).data, class_logits(model, IDS, lengths).data)
        with tg.no_grad():
            np.testing.assert_array_equal(class_logits(loaded, IDS, lengths).data, loaded(IDS, mask=MASK).data)


def test_the_classes_are_those_of_id2label(tmp_path):
    case = CASES[CLASSES]
    assert load_pretrained(publish(tmp_path / "a", CLASSES))[0].classes == ("ham", "spam", "neither")
    config = config_of(case)
    del config["id2label"]
    assert load_pretrained(write(tmp_path / "b", arrays_of(case), config))[0].classes == (
        "LABEL_0",
        "LABEL_1",
        "LABEL_2",
    )
    write(tmp_path / "b", arrays_of(case), config | {"id2label": {"0": "one"}})
    with pytest.raises(CheckpointError, match="must name the 3 classes of classifier"):
        load_pretrained(tmp_path / "b")


# ---- sizes from shapes, and the book's names


def test_without_a_configuration_shapes_tell(published, tmp_path):
    (published / "config.json").unlink()
    with pytest.raises(ConfigError, match="number of heads cannot be told from a width of 6: pass n_heads="):
        load_pretrained(published)
    expected = load_pretrained(publish(tmp_path / "said", BOTH), np.float64)[0]
    loaded, _, report = load_pretrained(published, np.float64, n_heads=2, report=True)
    same(loaded, expected)
    assert loaded.config == expected.config
    assert "the exact GELU and layer_norm_eps 1e-12" in str(report)
    wide = random_bert(emb_dim=128, n_segments=3, masked_words=False, next_sentence=False)
    save_file(wide.state_dict(), tmp_path / "wide.safetensors")
    loaded = load_pretrained(tmp_path / "wide.safetensors")[0]
    same(loaded, wide)
    assert (loaded.config.n_heads, loaded.config.n_segments, loaded.config.pooler) == (2, 3, True)


@pytest.mark.parametrize("changes", [{}, {"tie_weights": False}, {"pooler": False, "next_sentence": False}])
def test_the_names_of_a_run(changes, tmp_path):
    """The state dict as a run has it, beside nothing, and beside the config.json of the run."""
    model = random_bert(**changes)
    arrays = {name: array.copy() for name, array in model.state_dict().items()}
    write(tmp_path, arrays)
    loaded, _, report = load_pretrained(tmp_path / "model.safetensors", n_heads=2, report=True)
    same(loaded, model)
    assert "BERT, names of the book" in str(report)
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "bert", "model": model.config.to_dict()}))
    same(load_pretrained(tmp_path / "model.safetensors")[0], model)


def test_a_gpt_is_none_though_its_layers_have_the_same_names(tmp_path):
    sizes = {"vocab_size": 11, "context_length": 9, "emb_dim": 8, "n_heads": 2, "n_layers": 2, "qkv_bias": True}
    model = make_model("gpt", sizes, Generator(3))
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    assert load_pretrained(tmp_path, n_heads=2)[0].architecture == "gpt"


# ---- what cannot be


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "mish"}, "hidden_act is 'mish': use one of gelu, gelu_new, relu, silu"),
        ({"hidden_act": ["gelu"]}, r"hidden_act is \['gelu'\]"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key': only 'absolute' can"),
        ({"is_decoder": True}, "is_decoder is True: only False can be loaded"),
        ({"add_cross_attention": True}, "add_cross_attention is True: only False"),
        ({"pruned_heads": {"0": [1]}}, "pruned_heads is .*: only {} can be loaded"),
        ({"quantization_config": {"bits": 4}}, "quantization_config: numbers of few bits"),
        ({"architectures": ["BertForTokenClassification"]}, "architectures is .*TokenClassification.*: only one of BertModel, "),
        ({"architectures": "BertModel"}, "architectures is 'BertModel': only one of"),
        ({"architectures": []}, r"architectures is \[\]"),
        ({"architectures": [["BertModel"]]}, r"architectures is \[\['BertModel'\]\]"),
        ({"num_attention_heads": 4}, "num_attention_heads 4 does not divide hidden_size 6"),
        ({"type_vocab_size": 3}, r"token_type_embeddings.weight' in model.safetensors: \(2, 6\) against \(3, 6\)"),
        ({"type_vocab_size": 0}, "type_vocab_size is 0: it must be a positive integer"),
        ({"vocab_size": 10}, r"word_embeddings.weight' in model.safetensors: \(11, 6\) against \(10, 6\)"),
        ({"vocab_size": 1e12}, "vocab_size 1,000,000,000,000, .* TiB"),
        ({"intermediate_size": None}, "intermediate_size is None"),
        ({"num_hidden_layers": 3}, "has tensors of 2 layers, the configuration says 3"),
        ({"layer_norm_eps": "1e-5"}, "layer_norm_eps is '1e-5'"),
        ({"hidden_dropout_prob": 1.5}, "hidden_dropout_prob is 1.5"),
        ({"classifier_dropout": -1}, "classifier_dropout is -1"),
        ({"tie_word_embeddings": False}, r"missing cls.predictions.decoder.weight \(11, 6\)"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings is 1: it must be True or False"),
        ({"model_type": "roberta"}, "model_type is 'roberta': only .*bert.* can be loaded"),
        ({"model_type": "gpt2"}, "not a GPT-2: it holds 'bert.embeddings"),
    ],
)  # fmt: skip
def test_a_configuration_that_cannot_be_is_refused_by_field(published, changes, message):
    (published / "config.json").write_text(json.dumps(config_of(CASES[BOTH]) | changes))
    with pytest.raises((ConfigError, StateDictError), match=message) as caught:
        load_pretrained(published)
    assert str(caught.value).startswith(str(published))


@pytest.mark.parametrize(
    "field", ["layer_norm_eps", "hidden_act", "type_vocab_size", "hidden_dropout_prob", "architectures"]
)
def test_what_a_configuration_leaves_out_is_as_in_transformers(field, published):
    expected = load_pretrained(published)[0].config
    config = config_of(CASES[BOTH])
    del config[field]
    (published / "config.json").write_text(json.dumps(config))
    assert load_pretrained(published)[0].config == expected  # the case has what is usual in these


def test_rates_that_differ_are_said(published):
    config = config_of(CASES[BOTH]) | {"attention_probs_dropout_prob": 0.0, "classifier_dropout": 0.3}
    (published / "config.json").write_text(json.dumps(config))
    loaded, _, report = load_pretrained(published, report=True)
    assert loaded.config.drop_rate == 0.1
    assert "the model has one rate, drop_rate 0.1, that of hidden_dropout_prob" in str(report)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("bert.encoder.layer.1.output.dense.weight"), r"missing encoder.layer.1.output.dense.weight \(6, 5\)"),
        (lambda a: a.update({"bert.encoder.layer.0.attention.self.distance_embedding.weight": np.ones((3, 3))}), "unexpected"),
        (lambda a: a.update({"qa_outputs.weight": np.ones((2, 6))}), r"unexpected 'qa_outputs.weight' \(2, 6\)"),
        (lambda a: a.update({"classifier.weight": np.ones((2, 6))}), "unexpected 'cls.predictions.bias'.*missing classifier"),
        (lambda a: a.update({"bert.pooler.dense.bias": np.ones(7)}), r"pooler.dense.bias' .*: \(7,\) against \(6,\)"),
        (lambda a: a.update({"embeddings.word_embeddings.weight": np.ones((11, 6))}), "are the same tensor of a BERT"),
    ],
)  # fmt: skip
def test_a_misfit_is_named(published, change, message):
    arrays = arrays_of(CASES[BOTH])
    change(arrays)
    write(published, arrays)
    with pytest.raises(StateDictError, match=message):
        load_pretrained(published)


def test_a_tokenizer_with_more_ids_is_said(tmp_path):
    save_pretrained(random_bert(vocab_size=40), tmp_path / "a", CharTokenizer.train("abcdefghijklmnop"))
    publish(tmp_path / "a", BOTH)
    with pytest.warns(RuntimeWarning, match="the tokenizer has 17 ids, the model 11: it cannot read the last ones"):
        load_pretrained(tmp_path / "a")


def test_its_tokenizer_stands_beside_it(tmp_path):
    tokenizer = WordPieceTokenizer.train("Una lifted the lid, and the lids were lifted. " * 9, 60)
    model = random_bert(vocab_size=tokenizer.vocab_size)
    for folder, made in (
        ("words", model),
        ("classes", add_classifier(copy.deepcopy(model), ["a", "b"], rng=Generator(1))),
    ):
        save_pretrained(made, tmp_path / folder, tokenizer)
        config = json.loads((tmp_path / folder / "config.json").read_text())
        assert config["pad_token_id"] == tokenizer.pad_id == 0
        loaded, read = load_pretrained(tmp_path / folder)
        assert type(read) is WordPieceTokenizer
        assert read.frame(read.encode("the lid"), read.encode("Lifted!")) == tokenizer.frame(
            tokenizer.encode("the lid"), tokenizer.encode("Lifted!")
        )
        np.testing.assert_array_equal(loaded(IDS).data, made(IDS).data)
    save_pretrained(random_bert(), tmp_path / "letters", CharTokenizer.train("abc"))
    config = json.loads((tmp_path / "letters/config.json").read_text())
    assert config["pad_token_id"] == CharTokenizer.train("abc").eot_id  # and not 0, a letter
    save_pretrained(random_bert(), tmp_path / "none")
    assert json.loads((tmp_path / "none/config.json").read_text())["pad_token_id"] is None


def test_what_transformers_has_no_place_for(tmp_path):
    with pytest.raises(
        ConfigError, match="save_pretrained: model is a Embedding: it must be one that make_model makes"
    ):
        save_pretrained(Embedding(3, 2), tmp_path / "a")
    model = lora.inject(random_bert(), targets="W_query")
    with pytest.raises(ConfigError, match="has LoRA layers"):
        save_pretrained(model, tmp_path / "a")
    assert not (tmp_path / "a").exists()


# ---- adapters


def test_an_adapter_has_peft_s_names_and_comes_back(tmp_path):
    """test_bert_in_transformers.py has PEFT itself."""
    for name, changes, prefix in (
        ("heads", {}, "bert."),
        ("bare", {"masked_words": False, "next_sentence": False}, ""),
    ):
        folder = tmp_path / name
        base = random_bert(np.float64, **changes)
        save_pretrained(base, folder / "base")
        model = lora.inject(base, targets=["W_query", "W_value"], r=2, alpha=6)
        stream = np.random.default_rng(1)
        for p in model.parameters():
            p.data = stream.standard_normal(p.shape) if p.requires_grad else p.data
        lora.save(model, folder / "adapter", base=folder / "base")
        stored = load_file(folder / "adapter/adapter_model.safetensors")
        layers = f"base_model.model.{prefix}encoder.layer"
        assert {name: array.shape for name, array in stored.items()} == {
            f"{layers}.{i}.attention.self.{which}.lora_{letter}.weight": shape
            for i in range(2)
            for which in ("query", "value")
            for letter, shape in (("A", (2, 8)), ("B", (8, 2)))
        }
        config = json.loads((folder / "adapter/adapter_config.json").read_text())
        assert sorted(config["target_modules"]) == ["attention.self.query", "attention.self.value"]
        assert (config["fan_in_fan_out"], config["lora_alpha"], config["task_type"]) == (False, 6, None)
        loaded = load_pretrained(folder / "base", np.float64)[0]
        lora.load(loaded, folder / "adapter")
        same(loaded, model)


def test_an_adapter_makes_a_classifier(tmp_path):
    base = random_bert(np.float64)
    save_pretrained(base, tmp_path / "base")
    model = add_classifier(base, ["ham", "spam"], rng=Generator(1))
    model = lora.inject(model, targets=["W_query"], r=2, whole="out_head")
    for p in model.parameters():
        p.data = p.data + 0.1
    lora.save(model, tmp_path / "adapter")
    stored = load_file(tmp_path / "adapter/adapter_model.safetensors")
    assert {name: a.shape for name, a in stored.items() if "classifier" in name} == {
        "base_model.model.classifier.weight": (2, 8),
        "base_model.model.classifier.bias": (2,),
    }
    config = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    assert (config["task_type"], config["modules_to_save"]) == ("SEQ_CLS", ["classifier"])
    base = random_bert(np.float64)
    before = outputs(base)
    stored.pop("base_model.model.bert.encoder.layer.1.attention.self.query.lora_B.weight")
    save_file(stored, tmp_path / "adapter/adapter_model.safetensors")
    with pytest.raises(StateDictError, match=r"missing .*layer.1.attention.self.query.lora_B"):
        lora.load(base, tmp_path / "adapter")
    assert (base.classes, base.position) == (None, "")
    after = outputs(base)  # with all of its heads
    assert before.keys() == after.keys() == {"features", "pooled", "head", "follows"}
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array)


# ---- commands


def test_inspect_says_what_it_is(published, tmp_path, capsys):
    assert main(["inspect", str(published)]) == 0
    words = "BERT with the names of transformers: 2 layers, width 6, context 9, 11 tokens"
    assert words in capsys.readouterr().out
    write(tmp_path / "old", older(arrays_of(CASES[BOTH])))
    assert main(["inspect", str(tmp_path / "old")]) == 0
    assert "BERT with the older names of transformers: 2 layers, width 6, " in capsys.readouterr().out


@pytest.mark.parametrize(
    "command", [["generate"], ["evaluate", "--text"], ["chat", "--template"], ["instruct", "--init-from"]]
)
def test_commands_that_write_say_what_asks_a_bert(command, tmp_path, capsys):
    save_pretrained(random_bert(), tmp_path / "bert", CharTokenizer.train("abcdefghi"))
    (tmp_path / "text.txt").write_text("abc")
    name, *option = command
    arguments = {
        "--text": [str(tmp_path / "bert"), "--text", str(tmp_path / "text.txt")],
        "--template": [str(tmp_path / "bert"), "--template", "plain"],
        "--init-from": ["--init-from", str(tmp_path / "bert"), "--out", str(tmp_path / "run")],
    }.get(*option or ("",), [str(tmp_path / "bert")])
    assert main([name, *arguments]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "a BertModel, which does not write on from a text: tinygrad-llm predict, embed, classify ask it" in line
    assert not (tmp_path / "run").exists()
