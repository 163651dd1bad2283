"""Our adapters opened by PEFT itself, and its own opened here. Where peft is not installed (the extra `reference`), skipped."""

import json

import numpy as np
import pytest
from reference.opened_there import IDS, logits, peft, shaken, torch, transformers

from tinygrad_llm.models import make_model
from tinygrad_llm.models.heads import add_classifier
from tinygrad_llm.rng import Generator
from tinygrad_llm.tuning import lora
from tinygrad_llm.weights import load_pretrained, save_pretrained

pytestmark = pytest.mark.filterwarnings("ignore")
SIZES = {
    "vocab_size": 11,
    "context_length": 7,
    "emb_dim": 4,
    "n_heads": 2,
    "n_layers": 2,
    "qkv_bias": True,
    "drop_rate": 0.0,
}


OPTIONS = {
    "attn": {"targets": "attn", "r": 3, "alpha": 5},
    "some of q, k, v": {"targets": ["W_query", "W_value"], "r": 2},
    "in one layer": {"targets": ["trf_blocks.1.att.W_key", "trf_blocks.0.ff.layers.0"], "r": 2},
    "all, rslora": {"targets": "all", "r": 3, "alpha": 5, "use_rslora": True},
    "whole": {"targets": ["ff.layers.*"], "r": 2, "whole": ["final_norm", "trf_blocks.1.norm2"]},
    "tied": {"targets": "all", "r": 2},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_ours_give_our_logits_in_peft(name, tmp_path):
    base = make_model("gpt", SIZES | {"tie_weights": name == "tied"}, Generator(3)).astype(np.float64).eval()
    save_pretrained(base, tmp_path / "base")
    model = shaken(lora.inject(base, **OPTIONS[name]))
    lora.save(model, tmp_path / "adapter", base=tmp_path / "base")
    theirs = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "base", torch_dtype=torch.float64)
    adapted = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter").double().eval()
    np.testing.assert_allclose(adapted(torch.tensor(IDS)).logits.detach().numpy(), logits(model), rtol=1e-9, atol=1e-9)
    adapted.save_pretrained(tmp_path / "again")
    twin, _ = load_pretrained(tmp_path / "base", np.float64)
    lora.load(twin, tmp_path / "again")
    np.testing.assert_allclose(logits(twin), logits(model), rtol=1e-9, atol=1e-9)


def test_a_classifier_of_ours_in_peft(tmp_path):
    base = make_model("gpt", SIZES | {"tie_weights": True}, Generator(3)).astype(np.float64).eval()
    save_pretrained(base, tmp_path / "base")
    add_classifier(base, ["ham", "spam", "eggs"], bias=False, rng=Generator(1))
    model = shaken(lora.inject(base, targets="attn", whole="out_head"))
    lora.save(model, tmp_path / "adapter")
    theirs = transformers.GPT2ForSequenceClassification.from_pretrained(
        tmp_path / "base", torch_dtype=torch.float64, num_labels=3, pad_token_id=0
    )
    adapted = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter").double().eval()
    found = adapted(torch.tensor(IDS)).logits.detach().numpy()
    np.testing.assert_allclose(found, logits(model)[:, -1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("options", [
    {"r": 2, "target_modules": ["c_attn"]},
    {"r": 2, "target_modules": "all-linear", "use_rslora": True},
    {"r": 3, "target_modules": r".*\.h\.1\..*c_(fc|attn)", "lora_alpha": 5, "init_lora_weights": "gaussian"},
    {"r": 2, "target_modules": ["c_fc", "attn.c_proj"], "rank_pattern": {"c_fc": 4}, "modules_to_save": ["ln_f"]},
    {"r": 2, "target_modules": ["c_attn", "lm_head"]},
])  # fmt: skip
def test_pefts_give_its_logits_here(options, tmp_path):
    model = make_model("gpt", SIZES, Generator(3)).astype(np.float64).eval()
    save_pretrained(model, tmp_path / "base")
    theirs = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "base", torch_dtype=torch.float64)
    adapted = peft.get_peft_model(theirs, peft.LoraConfig(**options)).double().eval()
    torch.manual_seed(1)
    for p in adapted.parameters():
        if p.requires_grad:
            p.data = torch.randn_like(p)
    adapted.save_pretrained(tmp_path / "adapter")
    lora.load(model, tmp_path / "adapter")
    expected = adapted(torch.tensor(IDS)).logits.detach().numpy()
    np.testing.assert_allclose(logits(model), expected, rtol=1e-9, atol=1e-9)


def test_peft_counts_the_same(tmp_path, capsys):
    model = make_model("gpt", SIZES, Generator(3))
    save_pretrained(model, tmp_path / "base")
    theirs = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "base")
    peft.get_peft_model(
        theirs, peft.LoraConfig(r=2, target_modules=["attn.c_proj", "c_fc"])
    ).print_trainable_parameters()
    line = capsys.readouterr().out.strip().splitlines()[-1]
    lora.inject(model, r=2, targets=["out_proj", "ff.layers.0"])
    assert str(lora.info(model)).splitlines()[0] == line
    assert json.dumps(lora.info(model).to_dict())
