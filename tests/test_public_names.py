"""The calls that others rely on: their names, the names of their arguments, and what they return."""

import inspect

import numpy as np
import pytest

import tinygrad_llm as tg
from tinygrad_llm import cli
from tinygrad_llm.generation import generate
from tinygrad_llm.models.gpt import GPTConfig, GPTModel
from tinygrad_llm.testing import OpSpec, check_op, gradcheck, mutants, strategies
from tinygrad_llm.training import PretrainOptions, load_run, pretrain, resume, train_step
from tinygrad_llm.weights import load_pretrained, save_pretrained

COMMANDS = [
    "pretrain",
    "classify",
    "translate",
    "predict",
    "embed",
    "instruct",
    "chat",
    "prefer",
    "generate",
    "evaluate",
    "tokenize",
    "estimate",
    "bench",
    "doctor",
    "runs",
    "step",
    "report",
    "convert",
    "inspect",
    "lora",
]
OPTIONS = {
    "pretrain": "--preset --tokenizer --vocab-size --context-length --emb-dim --n-heads --n-layers --drop-rate --epochs "
    "--batch-size --accumulate --stride --lr --min-lr --warmup --weight-decay --max-norm --val-ratio --eval-every --eval-batches "
    "--next-sentence --mask-share --prompt --sample-tokens --temperature --top-k --save-every --spike --keep --on-nonfinite "
    "--seed --out --resume --init-from --general-text --tensorboard --weights-only --json",
    "classify": "--init-from --out --resume --train --lora --position --balance --keep-duplicates --examples --max-length --text "
    "--label --delimiter --encoding --epochs --batch-size --lr --seed --tensorboard --json",
    "instruct": "--init-from --out --resume --dry-run --train --lora --template --kinds --mask-instruction --bucket --examples "
    "--max-length --encoding --epochs --batch-size --lr --seed --tensorboard --json",
    "chat": "--prompt --system --template --temperature --top-k --max-new-tokens --seed --checkpoint --adapter --json",
    "prefer": "label reward dpo ppo grpo best-of-n compare",
    "prefer reward": "--init-from --out --resume --center --normalize --reference --template --lora --epochs --lr --seed --json",
    "prefer dpo": "--init-from --out --resume --beta --kind --label-smoothing --alpha --average --judge --eval-answers "
    "--max-new-tokens --temperature --least-chosen --stop-after --reference --epochs --lr --seed --json",
    "prefer ppo": "--init-from --out --resume --reward --judge --beta --target-kl --rollouts --ppo-epochs --ptx --seed --json",
    "prefer grpo": "--init-from --out --resume --reward --judge --beta --group --loss --scale --rollouts --seed --json",
    "prefer best-of-n": "--prompts --reward --judge --n --examples --max-new-tokens --temperature --seed --template --json",
    "prefer compare": "--prompts --by --judge --judge-model --examples --max-new-tokens --temperature --seed --template --json",
    "prefer label": "--prompts --out --by --noise --n --examples --repeat --temperature --max-new-tokens --seed --template "
    "--checkpoint --adapter --json",
    "translate": "--out --resume --emb-dim --n-heads --n-layers --hidden-dim --context-length --drop-rate --norm-first "
    "--positions --share --label-smoothing --schedule --warmup --tokenizer --vocab-size --bucket --judged --examples --encoding "
    "--epochs --batch-size --lr --seed --tensorboard --json",
    "predict": "--file --explain --top --beams --length-penalty --layer --head --checkpoint --json",
    "embed": "--out --query --top --checkpoint --adapter --json",
    "generate": "--prompt --max-new-tokens --temperature --top-k --top-p --min-p --typical-p --repetition-penalty "
    "--frequency-penalty --presence-penalty --no-repeat-ngram --logit-bias --stop --show-candidates --seed --json",
}


@pytest.fixture
def model():
    tg.manual_seed(123)
    config = GPTConfig(
        vocab_size=31, context_length=8, emb_dim=12, n_heads=3, n_layers=2, drop_rate=0.0, qkv_bias=True, init="pytorch"
    )
    return GPTModel(config)


def test_the_engine(model):
    x = np.linspace(-2, 2, 5)
    y, saved = tg.Op.registry["gelu"].forward(x)
    (dx,) = tg.Op.registry["gelu"].backward(np.ones(5), *saved)
    assert y.shape == dx.shape == (5,)
    with tg.no_grad():
        assert not (tg.nn.Linear(2, 2)(tg.Tensor([[1.0, 2.0]]))).requires_grad
    with tg.composed():
        assert tg.ops.gelu(tg.Tensor(x, requires_grad=True)).node.op.name != "gelu"
    assert tg.nn.Embedding(3, 2).weight.shape == (3, 2)


def test_a_model_and_its_parameters(model):
    ids = np.arange(16).reshape(2, 8)
    loss = tg.ops.cross_entropy(model(ids), targets=np.where(ids < 3, -100, ids), ignore_index=-100)
    loss.backward()
    for _, p in model.named_parameters():
        assert type(p.data) is np.ndarray
        assert type(p.grad) is np.ndarray
    state = model.state_dict()
    assert {"tok_emb.weight", "pos_emb.weight", "trf_blocks.0.att.W_query.bias", "out_head.weight"} <= state.keys()
    assert {"trf_blocks.1.ff.layers.0.weight", "trf_blocks.1.norm2.scale", "final_norm.shift"} <= state.keys()
    model.load_state_dict(state)
    assert model.astype(np.float64).tok_emb.weight.dtype == np.float64
    model.train()
    model.eval()


def test_a_training_step_and_text(model):
    ids = np.arange(16).reshape(2, 8)
    optimizer = tg.optim.AdamW(model.parameters(), lr=4e-4, weight_decay=0.1)
    loss = train_step(model, optimizer, ids, np.roll(ids, -1), max_norm=1.0, accumulate=2, threads=1)
    assert isinstance(loss, float)
    out = generate(model, [[1, 2]], max_new_tokens=3, temperature=0.5, top_k=4, use_cache=True)
    assert out.shape == (1, 5)


def test_runs_and_weights(model, tmp_path):
    (tmp_path / "text.txt").write_text("the cat sat on the mat; " * 20)
    sizes = {"tokenizer": "char", "context_length": 8, "emb_dim": 8, "n_heads": 2, "n_layers": 1}
    assert PretrainOptions.for_preset(**sizes).emb_dim == 8
    result = pretrain(tmp_path / "text.txt", out=tmp_path / "run", report=lambda line: None, epochs=1, **sizes)
    result = resume(tmp_path / "run", epochs=2, report=lambda line: None)
    loaded, _ = load_run(tmp_path / "run")
    np.testing.assert_array_equal(loaded.out_head.weight.data, result.model.out_head.weight.data)
    save_pretrained(model, tmp_path / "export")
    again, none = load_pretrained(tmp_path / "export", dtype=np.float32, strict_finite=False, n_heads=None)
    assert none is None
    np.testing.assert_array_equal(again.out_head.weight.data, model.out_head.weight.data)


def test_the_test_kit():
    def double_forward(x):
        """y = 2 x"""
        return 2 * x, ()

    def double_backward(g):
        """dx = 2 g"""
        return (2 * g,)

    double = tg.Op(double_forward, double_backward)
    try:
        spec = OpSpec(double, samples=lambda rng: [(rng.standard_normal((2, 3)),)], reference=lambda x: 2 * x)
        check_op(spec)
        assert gradcheck(double, np.ones((2, 3)))
        assert list(mutants(double))
        assert callable(strategies.tensors)
    finally:
        del tg.Op.registry["double"]


@pytest.mark.parametrize("command", [*COMMANDS, *(command for command in OPTIONS if " " in command)])
def test_commands(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main([*command.split(), "--help"])
    assert stopped.value.code == 0
    printed = capsys.readouterr().out
    for option in OPTIONS.get(command, "--help").split():
        assert option in printed, option


def test_arguments_have_their_names():
    assert list(inspect.signature(load_pretrained).parameters)[:4] == ["path", "dtype", "strict_finite", "n_heads"]
    assert {"model", "optimizer", "max_norm", "accumulate", "threads"} <= inspect.signature(
        train_step
    ).parameters.keys()
