"""Our BERTs opened by transformers and PEFT, and theirs here. Where these are not installed (the extra `reference`), skipped."""

import numpy as np
import pytest
from reference.opened_there import IDS, peft, shaken, torch, transformers

import tinygrad_llm as tg
from tinygrad_llm.models import make_model
from tinygrad_llm.models.heads import add_classifier
from tinygrad_llm.ops import cross_entropy
from tinygrad_llm.rng import Generator
from tinygrad_llm.text import WordPieceTokenizer
from tinygrad_llm.tuning import lora
from tinygrad_llm.weights import load_pretrained, save_pretrained
from tinygrad_llm.weights.bert import from_transformers

pytestmark = pytest.mark.filterwarnings("ignore")
SIZES = {"vocab_size": 11, "context_length": 9, "emb_dim": 8, "n_heads": 4, "n_layers": 2, "hidden_dim": 6}
THEIRS = {"vocab_size": 11, "max_position_embeddings": 9, "hidden_size": 8, "num_attention_heads": 4}
THEIRS |= {"num_hidden_layers": 2, "intermediate_size": 6}
SEGMENTS = np.array([[0, 0, 0, 1, 1, 1], [0, 1, 1, 1, 0, 0]])
MASK = np.array([[True] * 6, [True] * 4 + [False] * 2])
CLASSES = ["ham", "spam", "eggs"]

ENCODER = {"masked_words": False, "next_sentence": False}
# By the name of transformers' class, and options of ours.
MODELS = {
    "BertModel": ENCODER | {"activation": "relu"},
    "BertForMaskedLM": {"pooler": False, "next_sentence": False, "activation": "gelu", "norm_eps": 1e-3},
    "BertForMaskedLM, untied": {"pooler": False, "next_sentence": False, "tie_weights": False, "activation": "silu"},
    "BertForPreTraining": {"n_segments": 3},
    "BertForPreTraining, untied": {"tie_weights": False},
    "BertForNextSentencePrediction": {"masked_words": False},
    "BertForSequenceClassification": {},
}


def bert(name):
    model = make_model("bert", SIZES | MODELS[name], Generator(3)).astype(np.float64).eval()
    if name == "BertForSequenceClassification":
        add_classifier(model, CLASSES, rng=Generator(1))
    return shaken(model)


def opened(folder, name, **options):
    kind = getattr(transformers, name.split(",")[0])
    return kind.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager", **options).eval()


def asked(model):
    """What a model of transformers, or of PEFT's around one, makes of two texts: its outputs by name."""
    texts = {"token_type_ids": torch.tensor(SEGMENTS), "attention_mask": torch.tensor(MASK).long()}
    return dict(model(torch.tensor(IDS), **texts))


def ours(model, names):
    """The same of ours."""
    x = model.features(IDS, SEGMENTS, MASK)
    makes = {
        "last_hidden_state": lambda: x,
        "pooler_output": lambda: model.pool(x),
        "logits": lambda: model(IDS, SEGMENTS, MASK) if model.out_head else model.next_sentence(model.pool(x)),
        "prediction_logits": lambda: model(IDS, SEGMENTS, MASK),
        "seq_relationship_logits": lambda: model.next_sentence(model.pool(x)),
    }
    with tg.no_grad():
        return {name: makes[name]().data for name in names}


def close(found, expected):
    assert found.keys() == expected.keys()
    for name, array in found.items():
        np.testing.assert_allclose(array, expected[name].detach().numpy(), rtol=1e-10, atol=1e-10, err_msg=name)


@pytest.mark.parametrize("name", MODELS)
def test_ours_give_our_outputs_in_transformers(name, tmp_path):
    model = bert(name)
    save_pretrained(model, tmp_path / "a")
    theirs = opened(tmp_path / "a", name)
    expected = asked(theirs)
    close(ours(model, expected), expected)
    auto = transformers.AutoModel.from_pretrained(tmp_path / "a", dtype=torch.float64, attn_implementation="eager")
    features = asked(auto.eval())["last_hidden_state"]
    close(ours(model, ["last_hidden_state"]), {"last_hidden_state": features})


def test_ours_learn_the_same_in_transformers(tmp_path):
    model = bert("BertForPreTraining")
    save_pretrained(model, tmp_path / "a")
    theirs = opened(tmp_path / "a", "BertForPreTraining")
    targets = np.where(IDS % 3 == 1, IDS, -100)
    cross_entropy(model(IDS, SEGMENTS, MASK), targets=targets).backward()
    logits = asked(theirs)["prediction_logits"]
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.tensor(targets).flatten()).backward()
    for block, layer in zip(model.trf_blocks, theirs.bert.encoder.layer, strict=True):
        for p, q in (
            (block.att.W_query.weight, layer.attention.self.query.weight),
            (block.norm2.scale, layer.output.LayerNorm.weight),
            (block.ff.layers[0].bias, layer.intermediate.dense.bias),
        ):
            np.testing.assert_allclose(p.grad, q.grad.numpy(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_shards_of_theirs_open_here(dtype, tmp_path):
    theirs = transformers.BertForPreTraining(transformers.BertConfig(**THEIRS, attn_implementation="eager"))
    theirs.to(getattr(torch, dtype)).save_pretrained(tmp_path, max_shard_size="1KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    expected = asked(theirs.double().eval())
    close(ours(load_pretrained(tmp_path, np.float64)[0], expected), expected)


def test_what_a_configuration_does_not_say_is_as_in_transformers():
    made, theirs = from_transformers({"model_type": "bert"}, "config.json")[0], transformers.BertConfig()
    assert (made.vocab_size, made.context_length, made.n_segments) == (30522, theirs.max_position_embeddings, 2)
    sizes = (theirs.hidden_size, theirs.intermediate_size, theirs.num_hidden_layers, theirs.num_attention_heads)
    assert (made.emb_dim, made.hidden_width, made.n_layers, made.n_heads) == sizes
    assert (made.norm_eps, made.drop_rate, made.tie_weights) == (
        theirs.layer_norm_eps,
        theirs.hidden_dropout_prob,
        True,
    )
    assert (theirs.hidden_act, made.activation) == ("gelu", "gelu_erf")


def test_a_tokenizer_goes_with_it(tmp_path):
    text = "Una lifted the lid, and the lids were lifted. " * 9
    tokenizer = WordPieceTokenizer.train(text, 60)
    model = shaken(
        make_model("bert", SIZES | {"vocab_size": tokenizer.vocab_size}, Generator(3)).astype(np.float64).eval()
    )
    save_pretrained(model, tmp_path / "a", tokenizer)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "a")
    both = theirs("The lid!", "Una", return_tensors="np")
    ids, segments = tokenizer.frame(tokenizer.encode("The lid!"), tokenizer.encode("Una"))
    assert (both["input_ids"][0].tolist(), both["token_type_ids"][0].tolist()) == (ids, segments)
    opened_there = opened(tmp_path / "a", "BertForPreTraining")
    assert opened_there.config.pad_token_id == theirs.pad_token_id == tokenizer.pad_id
    expected = opened_there(**{name: torch.tensor(array) for name, array in both.items()}).prediction_logits
    with tg.no_grad():
        close({"logits": model(np.array([ids]), np.array([segments])).data}, {"logits": expected})


# ---- LoRA


LORA = {
    "query and value": {"targets": ["W_query", "W_value"], "r": 2},
    "all, rslora": {"targets": "all", "r": 3, "alpha": 5, "use_rslora": True},
    "whole": {"targets": ["ff.layers.*"], "r": 2, "whole": ["emb_norm", "trf_blocks.1.norm2", "pooler"]},
    "in one layer": {"targets": ["trf_blocks.1.att.W_key", "trf_blocks.0.att.out_proj"], "r": 2},
}


@pytest.mark.parametrize("name", ["BertModel", "BertForPreTraining", "BertForPreTraining, untied"])
@pytest.mark.parametrize("options", LORA)
def test_our_adapters_give_our_outputs_in_peft(name, options, tmp_path):
    base = bert(name)
    save_pretrained(base, tmp_path / "base")
    model = shaken(lora.inject(base, **LORA[options]))
    lora.save(model, tmp_path / "adapter", base=tmp_path / "base")
    adapted = peft.PeftModel.from_pretrained(opened(tmp_path / "base", name), tmp_path / "adapter").double().eval()
    expected = asked(adapted)
    close(ours(model, expected), expected)
    adapted.save_pretrained(tmp_path / "again")
    twin = load_pretrained(tmp_path / "base", np.float64)[0]
    lora.load(twin, tmp_path / "again")
    close(ours(twin, expected), expected)


def test_an_adapter_that_classifies(tmp_path):
    base = bert("BertForPreTraining")
    save_pretrained(base, tmp_path / "base")
    model = add_classifier(base, CLASSES, rng=Generator(1))
    model = shaken(lora.inject(model, targets=["W_query", "W_value"], r=2, whole="out_head"))
    lora.save(model, tmp_path / "adapter")
    theirs = opened(tmp_path / "base", "BertForSequenceClassification", num_labels=3)
    expected = asked(peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter").double().eval())
    close(ours(model, expected), expected)
    twin = load_pretrained(tmp_path / "base", np.float64)[0]
    lora.load(twin, tmp_path / "adapter")
    assert twin.classes == tuple(CLASSES)
    close(ours(twin, expected), expected)


@pytest.mark.parametrize(("name", "options"), [
    ("BertForPreTraining", {"r": 2}),  # PEFT's own choice: query and value
    ("BertModel", {"r": 2}),
    ("BertForPreTraining", {"r": 2, "target_modules": "all-linear", "use_rslora": True}),
    ("BertForMaskedLM", {"target_modules": ["query"], "rank_pattern": {"layer.0.attention.self.query": 4},
                         "modules_to_save": ["LayerNorm", "cls.predictions.transform.dense"]}),
    ("BertForMaskedLM, untied", {"r": 2, "target_modules": ["value", "decoder"]}),
    ("BertForMaskedLM, untied", {"r": 2, "target_modules": ["key"], "modules_to_save": ["decoder"]}),
    ("BertForSequenceClassification", {"r": 2, "task_type": "SEQ_CLS"}),
])  # fmt: skip
def test_pefts_give_its_outputs_here(name, options, tmp_path):
    model = bert(name)
    save_pretrained(model, tmp_path / "base")
    adapted = peft.get_peft_model(opened(tmp_path / "base", name), peft.LoraConfig(**options)).double().eval()
    torch.manual_seed(1)
    for p in adapted.parameters():
        if p.requires_grad:
            p.data = 0.5 * torch.randn_like(p)
    adapted.save_pretrained(tmp_path / "adapter")
    lora.load(model, tmp_path / "adapter")
    expected = asked(adapted)
    close(ours(model, expected), expected)
