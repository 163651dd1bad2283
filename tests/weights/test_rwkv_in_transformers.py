"""Our RWKV-4s opened by transformers and PEFT, and theirs here. Where they are not installed (the extra `reference`), skipped."""

import numpy as np
import pytest
from reference.opened_there import IDS, in_float64, logits, peft, shaken, torch, transformers

from tinygrad_llm.generation import generate
from tinygrad_llm.models import make_model
from tinygrad_llm.ops import cross_entropy
from tinygrad_llm.rng import Generator
from tinygrad_llm.text import BPETokenizer
from tinygrad_llm.tuning import lora
from tinygrad_llm.weights import load_pretrained, save_pretrained
from tinygrad_llm.weights.rwkv import from_transformers

pytestmark = pytest.mark.filterwarnings("ignore")
SIZES = {"vocab_size": 11, "emb_dim": 6, "n_layers": 3}
MODELS = {
    "usual": {},
    "odd widths, tied": {"attention_dim": 4, "hidden_dim": 5, "tie_weights": True},
    "halved": {"rescale_every": 1, "norm_eps": 1e-2},
}


def rwkv(name, dtype=np.float64):
    return shaken(make_model("rwkv", SIZES | MODELS[name], Generator(3)).astype(dtype).eval())


def opened(folder):
    return in_float64(transformers.RwkvForCausalLM.from_pretrained(folder, dtype=torch.float64))


def close(found, expected, tolerance=1e-10):
    np.testing.assert_allclose(found, expected.detach().numpy(), rtol=tolerance, atol=tolerance)


def asked(model):
    return model(torch.tensor(IDS), use_cache=False).logits


@pytest.mark.parametrize("name", MODELS)
def test_ours_give_our_logits_and_learn_the_same_in_transformers(name, tmp_path):
    model = rwkv(name)
    save_pretrained(model, tmp_path / "a")
    theirs = opened(tmp_path / "a")
    expected = asked(theirs.train())
    output = model.train()(IDS)
    close(output.data, expected)
    cross_entropy(output[:, :-1], targets=IDS[:, 1:]).backward()
    torch.nn.functional.cross_entropy(expected[:, :-1].flatten(0, 1), torch.tensor(IDS[:, 1:]).flatten()).backward()
    for block, layer in zip(model.trf_blocks, theirs.rwkv.blocks, strict=True):
        for p, q in (
            (block.att.decay, layer.attention.time_decay),
            (block.att.first, layer.attention.time_first),
            (block.att.mix_value, layer.attention.time_mix_value),
            (block.ff.key.weight, layer.feed_forward.key.weight),
        ):
            close(p.grad, q.grad.flatten() if p.ndim == 1 else q.grad)
    close(logits(model.eval()), asked(theirs.eval()))


@pytest.mark.parametrize("name", MODELS)
def test_their_own_recurrence_gives_the_same_in_float32(name, tmp_path):
    """As it is, token by token and with their state; in_float64 has it replaced by sums."""
    model = rwkv(name, np.float32)
    save_pretrained(model, tmp_path / "a")
    theirs = transformers.RwkvForCausalLM.from_pretrained(tmp_path / "a").eval()
    close(logits(model), asked(theirs), 1e-5)
    if "widths" not in name:  # their state has no room for these
        greedy = theirs.generate(
            torch.tensor(IDS[:1, :3]), max_new_tokens=8, do_sample=False, eos_token_id=99, pad_token_id=0
        )
        np.testing.assert_array_equal(generate(model, IDS[:1, :3], 8), greedy.numpy())  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_shards_of_theirs_open_here(dtype, tmp_path):
    theirs = transformers.RwkvForCausalLM(transformers.RwkvConfig(vocab_size=11, hidden_size=6, num_hidden_layers=3))
    theirs.to(getattr(torch, dtype)).save_pretrained(tmp_path, max_shard_size="1KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    close(logits(load_pretrained(tmp_path, np.float64)[0]), asked(in_float64(theirs)))


def test_what_a_configuration_does_not_say_is_as_in_transformers():
    made, theirs = from_transformers({"model_type": "rwkv"}, "config.json"), transformers.RwkvConfig()
    assert (made.vocab_size, made.emb_dim, made.n_layers) == (50277, theirs.hidden_size, theirs.num_hidden_layers)
    assert (made.attention_width, made.hidden_width) == (theirs.attention_hidden_size, theirs.intermediate_size)
    assert (made.rescale_every, made.norm_eps, made.tie_weights) == (6, theirs.layer_norm_epsilon, False)
    assert theirs.rescale_every == 6


def test_a_tokenizer_goes_with_it(tmp_path):
    tokenizer = BPETokenizer.train("the lid, and the lids were lifted. " * 9, 270)
    model = make_model("rwkv", SIZES | {"vocab_size": tokenizer.vocab_size}, Generator(3))
    save_pretrained(model, tmp_path / "a", tokenizer)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "a")
    assert theirs("the lids")["input_ids"] == tokenizer.encode("the lids")
    assert opened(tmp_path / "a").config.eos_token_id == tokenizer.eot_id


# ---- LoRA


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    "options",
    [
        {"targets": ["attn"], "r": 2},
        {"targets": ["key", "value", "receptance", "output"], "r": 3, "alpha": 5, "use_rslora": True},
        {"targets": ["trf_blocks.1.ff.value"], "r": 2, "whole": ["trf_blocks.0.norm1"]},
    ],
)
def test_our_adapters_give_our_logits_in_peft(name, options, tmp_path):
    base = rwkv(name)
    save_pretrained(base, tmp_path / "base")
    model = shaken(lora.inject(base, **options))
    lora.save(model, tmp_path / "adapter", base=tmp_path / "base")
    adapted = peft.PeftModel.from_pretrained(opened(tmp_path / "base"), tmp_path / "adapter").double().train()
    close(logits(model.train()), asked(adapted))
    adapted.save_pretrained(tmp_path / "again")
    twin = load_pretrained(tmp_path / "base", np.float64)[0]
    lora.load(twin, tmp_path / "again")
    close(logits(twin.train()), asked(adapted))


@pytest.mark.parametrize(
    "options",
    [
        {"r": 2},  # PEFT's own choice: key, value, receptance and output
        {"r": 2, "target_modules": "all-linear", "use_rslora": True},
        {"target_modules": ["key"], "rank_pattern": {"feed_forward.key": 4}, "modules_to_save": ["ln1", "head"]},
    ],
)
def test_pefts_give_its_logits_here(options, tmp_path):
    model = rwkv("halved")
    save_pretrained(model, tmp_path / "base")
    adapted = peft.get_peft_model(opened(tmp_path / "base"), peft.LoraConfig(**options)).double().train()
    torch.manual_seed(1)
    for p in adapted.parameters():
        if p.requires_grad:
            p.data = 0.5 * torch.randn_like(p)
    adapted.save_pretrained(tmp_path / "adapter")
    lora.load(model, tmp_path / "adapter")
    close(logits(model.train()), asked(adapted))
