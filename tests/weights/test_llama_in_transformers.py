"""Our Llamas opened by transformers and PEFT, and theirs here. Where these are not installed (the extra `reference`), skipped."""

import numpy as np
import pytest
from reference.opened_there import IDS, in_float64, logits, peft, shaken, torch, transformers

from tinygrad_llm.generation import generate
from tinygrad_llm.models import make_model
from tinygrad_llm.models.heads import add_classifier, class_logits
from tinygrad_llm.ops import cross_entropy
from tinygrad_llm.rng import Generator
from tinygrad_llm.tuning import lora
from tinygrad_llm.weights import load_pretrained, save_pretrained
from tinygrad_llm.weights.llama import from_transformers

pytestmark = pytest.mark.filterwarnings("ignore")
SIZES = {
    "vocab_size": 11,
    "context_length": 9,
    "emb_dim": 8,
    "n_heads": 4,
    "n_layers": 2,
    "hidden_dim": 6,
    "head_dim": 4,
}
THEIRS = {"vocab_size": 11, "max_position_embeddings": 9, "hidden_size": 8, "num_attention_heads": 4}
THEIRS |= {"num_hidden_layers": 2, "intermediate_size": 6, "head_dim": 4}


def llama(**changes):
    return shaken(make_model("llama", SIZES | changes, Generator(3)).astype(np.float64).eval())


def opened(folder, kind="LlamaForCausalLM"):
    return in_float64(getattr(transformers, kind).from_pretrained(folder, dtype=torch.float64))


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


OPTIONS = {
    "4 key heads": {},
    "2 key heads, tied": {"n_kv_heads": 2, "tie_weights": True, "rope_base": 500.0},
    "1 key head": {"n_kv_heads": 1, "norm_eps": 1e-2},
    "all biases": {"n_kv_heads": 2, "qkv_bias": True, "out_bias": True, "bias": True},
    "biases of queries": {"qkv_bias": True},
    "wide heads": {"head_dim": 6, "n_kv_heads": 2},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_ours_give_our_logits_gradients_and_ids_in_transformers(name, tmp_path):
    model = llama(**OPTIONS[name])
    save_pretrained(model, tmp_path / "a")
    theirs = opened(tmp_path / "a")
    ids, found = torch.tensor(IDS), model(IDS)
    expected = theirs(ids).logits
    close(found.data, expected.detach().numpy())
    cross_entropy(found[:, :-1], targets=IDS[:, 1:]).backward()
    torch.nn.functional.cross_entropy(expected[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
    close(model.tok_emb.weight.grad, theirs.model.embed_tokens.weight.grad.numpy())
    for block, layer in zip(model.trf_blocks, theirs.model.layers, strict=True):
        close(block.att.W_query.weight.grad, layer.self_attn.q_proj.weight.grad.numpy())
        close(block.att.W_key.weight.grad, layer.self_attn.k_proj.weight.grad.numpy())
        close(block.ff.fc3.weight.grad, layer.mlp.down_proj.weight.grad.numpy())
    greedy = theirs.generate(
        ids[:1, :3], attention_mask=torch.ones(1, 3), max_new_tokens=6, do_sample=False, eos_token_id=99, pad_token_id=0
    )
    np.testing.assert_array_equal(generate(model, IDS[:1, :3], 6), greedy.numpy())


def test_one_with_a_window_is_a_mistral_there(tmp_path):
    model = llama(window=3, n_kv_heads=2)
    save_pretrained(model, tmp_path / "a")
    close(logits(model), opened(tmp_path / "a", "AutoModelForCausalLM")(torch.tensor(IDS)).logits.detach().numpy())


def test_a_classifier_of_ours_in_transformers(tmp_path):
    model = shaken(add_classifier(llama(), ["ham", "spam", "eggs"], bias=False, rng=Generator(1)))
    save_pretrained(model, tmp_path / "a")
    theirs = opened(tmp_path / "a", "LlamaForSequenceClassification")
    theirs.config.pad_token_id = 4
    assert theirs.config.id2label == {0: "ham", 1: "spam", 2: "eggs"}
    found = class_logits(model, IDS, np.array([6, 6])).data
    close(found, theirs(torch.tensor(IDS)).logits.detach().numpy())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_shards_of_theirs_open_here(dtype, tmp_path):
    config = transformers.LlamaConfig(**THEIRS, num_key_value_heads=2)
    theirs = transformers.LlamaForCausalLM(config).to(getattr(torch, dtype))
    theirs.save_pretrained(tmp_path, max_shard_size="1KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    close(
        logits(load_pretrained(tmp_path, np.float64)[0]), in_float64(theirs)(torch.tensor(IDS)).logits.detach().numpy()
    )


@pytest.mark.parametrize("kind", [transformers.LlamaConfig, transformers.MistralConfig])
def test_what_a_configuration_does_not_say_is_as_in_transformers(kind):
    ours, theirs = from_transformers({"model_type": kind.model_type}, "config.json")[0], kind()
    window = getattr(theirs, "sliding_window", None)
    assert (ours.vocab_size, ours.context_length, ours.window) == (32000, theirs.max_position_embeddings, window)
    sizes = (theirs.hidden_size, theirs.intermediate_size, theirs.num_hidden_layers, theirs.num_attention_heads)
    assert (ours.emb_dim, ours.hidden_width, ours.n_layers, ours.n_heads) == sizes
    assert (ours.kv_heads, ours.norm_eps, ours.tie_weights) == (theirs.num_key_value_heads, theirs.rms_norm_eps, False)
    assert (ours.rope_base, ours.head_width) == (10000, 128)


# ---- LoRA


LORA = {
    "q and v": {"targets": ["W_query", "W_value"], "r": 2},
    "attn": {"targets": "attn", "r": 3, "alpha": 5},
    "all, rslora": {"targets": "all", "r": 3, "alpha": 5, "use_rslora": True},
    "whole": {"targets": ["ff.fc1", "ff.fc3"], "r": 2, "whole": ["final_norm", "trf_blocks.1.norm2"]},
    "in one layer": {"targets": ["trf_blocks.1.att.W_key", "trf_blocks.0.att.out_proj"], "r": 2},
}


@pytest.mark.parametrize("name", LORA)
@pytest.mark.parametrize("tied", [False, True])
def test_our_adapters_give_our_logits_in_peft(name, tied, tmp_path):
    base = llama(n_kv_heads=2, tie_weights=tied)
    save_pretrained(base, tmp_path / "base")
    model = shaken(lora.inject(base, **LORA[name]))
    lora.save(model, tmp_path / "adapter", base=tmp_path / "base")
    adapted = peft.PeftModel.from_pretrained(opened(tmp_path / "base"), tmp_path / "adapter").double().eval()
    close(adapted(torch.tensor(IDS)).logits.detach().numpy(), logits(model))
    adapted.save_pretrained(tmp_path / "again")
    twin = load_pretrained(tmp_path / "base", np.float64)[0]
    lora.load(twin, tmp_path / "again")
    close(logits(twin), logits(model))


def test_an_adapter_that_classifies(tmp_path):
    base = llama()
    save_pretrained(base, tmp_path / "base")
    model = add_classifier(base, ["ham", "spam", "eggs"], bias=False, rng=Generator(1))
    model = shaken(lora.inject(model, targets=["W_query", "W_value"], r=2, whole="out_head"))
    lora.save(model, tmp_path / "adapter")
    theirs = transformers.LlamaForSequenceClassification.from_pretrained(
        tmp_path / "base", dtype=torch.float64, num_labels=3, pad_token_id=4
    )
    adapted = in_float64(peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter"))
    close(adapted(torch.tensor(IDS)).logits.detach().numpy(), logits(model)[:, -1])
    twin = load_pretrained(tmp_path / "base", np.float64)[0]
    lora.load(twin, tmp_path / "adapter")
    assert twin.classes == ("ham", "spam", "eggs")
    close(logits(twin), logits(model))


@pytest.mark.parametrize("options", [
    {"r": 2},  # PEFT's own choice: q_proj and v_proj
    {"r": 2, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]},
    {"r": 2, "target_modules": "all-linear", "use_rslora": True},
    {"r": 2, "target_modules": ["q_proj", "v_proj"], "rank_pattern": {"q_proj": 4}, "modules_to_save": ["norm"]},
    {"r": 2, "target_modules": ["v_proj", "lm_head"]},
])  # fmt: skip
def test_pefts_give_its_logits_here(options, tmp_path):
    model = llama(n_kv_heads=1)
    save_pretrained(model, tmp_path / "base")
    adapted = peft.get_peft_model(opened(tmp_path / "base"), peft.LoraConfig(**options, task_type="CAUSAL_LM"))
    adapted = adapted.double().eval()
    torch.manual_seed(1)
    for p in adapted.parameters():
        if p.requires_grad:
            p.data = torch.randn_like(p)
    adapted.save_pretrained(tmp_path / "adapter")
    lora.load(model, tmp_path / "adapter")
    close(logits(model), adapted(torch.tensor(IDS)).logits.detach().numpy())
