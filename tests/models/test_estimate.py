"""The costs of a model by formula, against what a model allocates and records, and against published figures."""

import dataclasses
import json
import math
import os
import platform
import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_llm as tg
from tinygrad_llm.cli import main
from tinygrad_llm.errors import ConfigError
from tinygrad_llm.models import PRESETS, GPTConfig, GPTModel, LlamaConfig, make_model, preset
from tinygrad_llm.models.estimate import TrainingMemory, estimate, memory_there
from tinygrad_llm.testing import strategies

GPT3 = estimate(PRESETS["gpt3-175B"])


# ---- parameters


def assert_parameters_by_module(config):
    model, e = make_model(config.architecture, config), estimate(config)
    assert e.parameters == model.n_parameters() == config.n_parameters()
    by_module = {}
    for name, parameter in model.named_parameters():
        module = re.sub(r"trf_blocks\.\d+", "trf_blocks", name).rpartition(".")[0]
        by_module[module] = by_module.get(module, 0) + parameter.size
    for module in e.modules:
        name = module.name.replace(".window", "")
        by_module[name] = by_module.get(name, 0) - module.copies * module.parameters
    assert not any(by_module.values()), by_module


@settings(max_examples=15)
@given(st.one_of(*(strategies.model_configs(architecture, 5000) for architecture in ("gpt", "llama", "bert"))))
def test_parameters_are_those_of_a_model(config):
    assert_parameters_by_module(config)
    if config.architecture == "gpt":
        assert_parameters_by_module(dataclasses.replace(config, bias=False))
    elif config.architecture == "llama" and config.window:
        assert_parameters_by_module(dataclasses.replace(config, global_every=2))


def test_published_sizes():
    assert GPT3.parameters == 174_604_259_328
    published = {
        "llama2-7B": 6_738_415_616,
        "llama2-13B": 13_015_864_320,
        "llama2-70B": 68_976_648_192,
        "stories260K": 260_032,
        "stories15M": 15_191_712,
        "stories42M": 41_689_600,
        "stories110M": 109_529_856,
    }
    assert {name: estimate(PRESETS[name]).parameters for name in published} == published
    untied = estimate(PRESETS["124M"])
    assert untied.parameters == 163_009_536
    assert round(untied.weight_bytes / 2**20, 2) == 621.83  # the book's "MB" are 2^20 bytes
    block = {m.name: m.parameters for m in untied.modules}
    assert sum(n for name, n in block.items() if ".att" in name) == 2_360_064
    assert sum(n for name, n in block.items() if ".ff." in name) == 4_722_432


# ---- FLOPs


def test_the_rule_6n_plus_12lct():
    """nanoGPT's count for GPT-2 124M at 1024 tokens: N is all but the position table, the head is tied."""
    e = estimate(dataclasses.replace(PRESETS["124M"], qkv_bias=True, tie_weights=True))
    n = 124_439_808 - 1024 * 768
    assert e.training_flops_per_token == 6 * n + 12 * 12 * 768 * 1024 == 855_166_464
    assert e.attention_flops_per_token == 12 * 12 * 768 * 1024


def test_an_untied_head_takes_no_more_flops():
    tied = dataclasses.replace(PRESETS["355M"], tie_weights=True)
    assert estimate(tied).training_flops_per_token == estimate(PRESETS["355M"]).training_flops_per_token


def test_what_gpt3_cost():
    """300 billion tokens: 3.14e23 FLOPs for the weights (Brown et al. 2020, table D.1), 355 years of a V100, 4.6 M$."""
    cost = GPT3.training_cost(300e9)
    weights = 1 - GPT3.attention_flops_per_token / GPT3.training_flops_per_token
    assert weights * cost.flops == pytest.approx(3.14e23, rel=2e-3)
    assert weights * cost.gpu_days / 365.25 == pytest.approx(355, rel=2e-3)
    assert weights * cost.dollars == pytest.approx(4.6e6, rel=0.02)
    assert cost.dollars == pytest.approx(cost.flops / 28e12 / 3600 * 1.5, rel=1e-12)
    dearer = GPT3.training_cost(150e9, tflops=14, price=3)
    assert (dearer.gpu_days, dearer.dollars) == pytest.approx((cost.gpu_days, 2 * cost.dollars))


# ---- memory


def owner(array):
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def arrays_in(value):
    if isinstance(value, np.ndarray):
        yield owner(value)
    elif isinstance(value, (tuple, list, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from arrays_in(part)


def kept_bytes(loss):
    """The bytes of all arrays that the tape behind `loss` holds for the backward, each once, without the parameters."""
    kept, parameters, nodes, todo = {}, set(), set(), [loss.node]
    while todo:
        node = todo.pop()
        if isinstance(node, tg.Tensor):
            parameters.add(id(owner(node.data)))
        elif node is not None and node not in nodes:
            nodes.add(node)
            kept |= {id(array): array for array in arrays_in(node.saved)}
            todo += node.parents
    return sum(array.nbytes for i, array in kept.items() if i not in parameters)


@pytest.mark.parametrize(("batch_size", "t"), [(1, 16), (3, 64), (1, 320)])
@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("gpt", {}),
        ("llama", {"hidden_dim": 130, "n_kv_heads": 2, "head_dim": 10}),
        ("bert", {"pooler": False, "next_sentence": False, "hidden_dim": 130}),
    ],
)
def test_activations_are_what_the_tape_keeps(architecture, options, batch_size, t):
    """Within 2 %: token ids and masks of one byte are not counted. 320 tokens are more than attention keeps P for."""
    sizes = {"vocab_size": 90, "context_length": t, "emb_dim": 48, "n_heads": 4, "n_layers": 2, "drop_rate": 0.0}
    model = make_model(architecture, sizes | options)
    ids = np.random.RandomState(0).randint(0, 90, (batch_size, t))
    loss = tg.ops.cross_entropy(model(ids), targets=ids)
    e = estimate(model.config, batch_size=batch_size)
    assert e.activation_bytes == pytest.approx(kept_bytes(loss), rel=0.02)


def test_an_encoder_keeps_nothing_for_later_tokens():
    assert estimate(PRESETS["bert-base"]).kv_cache_bytes == 0


def test_the_kv_cache():
    """Of a model that is 4,096 wide, with 32 heads and layers, for 32,768 tokens in bfloat16."""
    assert estimate(PRESETS["124M"]).kv_cache_bytes == 72 * 2**20
    for options, gigabytes in [
        ({}, 17.18),
        ({"n_kv_heads": 8}, 4.29),
        ({"window": 1024, "global_every": 6}, 3.14),
    ]:
        e = estimate(preset("llama2-7B", context_length=32768, **options), bytes_per_number=2)
        assert round(e.kv_cache_bytes / 1e9, 2) == gigabytes
    e = estimate(preset("llama2-7B", context_length=32768), batch_size=5, bytes_per_number=2)
    assert e.kv_cache_bytes == 5 * 2 * 32 * 32768 * 4096 * 2


@pytest.mark.parametrize("name", ["story", "stories260K"])
def test_the_kv_cache_is_what_one_allocates(name):
    cache = make_model(PRESETS[name].architecture, PRESETS[name]).make_state(3)
    allocated = sum(a.nbytes for layer in cache.layers for a in vars(layer).values() if isinstance(a, np.ndarray))
    assert estimate(PRESETS[name], batch_size=3).kv_cache_bytes == allocated > 0


def test_training_memory():
    e = estimate(PRESETS["story"], batch_size=2)
    assert e.training_bytes == 16 * e.parameters + e.activation_bytes
    assert estimate(PRESETS["story"], batch_size=4).activation_bytes == 2 * e.activation_bytes


# ---- beside what there is

MEASURE = """
import sys

import numpy as np

import tinygrad_llm as tg
from tinygrad_llm.models.gpt import GPTConfig, GPTModel
from tinygrad_llm.training import train_step

def peak():  # ru_maxrss would know of the process that started this one
    with open("/proc/self/status") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith("VmHWM"))

vocab_size, t, emb_dim, n_heads, n_layers, batch_size = map(int, sys.argv[1:])
before = peak()
model = GPTModel(GPTConfig(vocab_size, t, emb_dim, n_heads, n_layers, drop_rate=0.1))
optimizer = tg.optim.AdamW(model.parameters())
ids = np.random.default_rng(0).integers(0, vocab_size, (batch_size, t))
for _ in range(4):
    train_step(model, optimizer, ids, ids, max_norm=1.0, threads=2)
print(peak() - before)
"""


@pytest.mark.skipif(platform.system() != "Linux", reason="needs /proc")
@pytest.mark.parametrize(
    ("sizes", "batch_size", "at_once"),
    [((65, 64, 128, 4, 4), 12, 12), ((512, 128, 192, 6, 6), 8, 8), ((512, 128, 192, 6, 6), 32, 8)],
    ids=["nano", "mini", "mini, of whose batch a quarter is under way"],
)
def test_the_formula_is_what_a_training_step_holds(sizes, batch_size, at_once):
    command = [sys.executable, "-c", MEASURE, *map(str, (*sizes, batch_size))]
    held = int(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    assert TrainingMemory(GPTConfig(*sizes), batch_size, at_once).n_bytes == pytest.approx(held, rel=0.25)


BOOK = TrainingMemory(preset("124M"), 2, 2)  # 4.23 GiB by formula, 4,140 MiB measured


@pytest.mark.parametrize(
    ("there", "free", "outcome"),
    [(8, 6, None), (8, 4, "4.00 GiB are free"), (4, 3, "3.00 GiB are free"), (2, 2, "2.00 GiB are there")],
)
def test_the_run_of_the_book_beside_what_there_is(monkeypatch, there, free, outcome):
    monkeypatch.setattr("tinygrad_llm.models.estimate.memory_there", lambda: (there * 2**30, free * 2**30))
    lines = []
    if there == 2:
        with pytest.raises(ConfigError, match=f"on batches of 2 x 1024 tokens needs about 4.23 GiB, {outcome}: use a"):
            BOOK.check(lines.append)
    else:
        BOOK.check(lines.append)
    assert len(lines) == (there in (8, 4) and free <= 4)
    assert all(outcome in line for line in lines)


def test_a_text_counts(monkeypatch):
    text = dataclasses.replace(BOOK, text_bytes=5 * 2**30)
    assert text.n_bytes == BOOK.n_bytes + 5 * 2**30
    assert "about 9.23 GiB" in str(text)


def machine(root, groups, files):
    """/proc and /sys of a machine with 1 GiB free, on which this process holds 3 pages."""
    files = files | {
        "proc/self/statm": "9 3 1 1 0 1 0\n",
        "proc/meminfo": "MemTotal: 9999999 kB\nMemFree: 5 kB\nMemAvailable: 1048576 kB\n",
        "proc/self/cgroup": groups,
    }
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


V1, V2 = "sys/fs/cgroup/memory/", "sys/fs/cgroup/"


@pytest.mark.skipif(platform.system() != "Linux", reason="control groups are Linux's")
@pytest.mark.parametrize(
    ("groups", "files", "limit", "free"),
    [
        ("", {}, math.inf, 2**30),
        ("0::/\n", {V2 + "memory.max": "max\n"}, math.inf, 2**30),
        (
            "0::/\n",
            {V2 + "memory.max": "5000000", V2 + "memory.current": "900000", V2 + "memory.stat": "inactive_file 500000"},
            5_000_000,
            4_600_000,
        ),
        (
            "1:cpu:/\n0::/a/b\n",  # the group around the own one is the narrower
            {V2 + "a/memory.max": "7000000", V2 + "a/memory.current": "8000000"}
            | {V2 + "a/memory.stat": "x 1\ninactive_file 0\n", V2 + "a/b/memory.max": "max"},
            7_000_000,
            0,
        ),
        (
            "4:memory:/docker/1234\n0::/\n",  # as it is called outside the container
            {V1 + "memory.limit_in_bytes": "6000000", V1 + "memory.usage_in_bytes": "2000000"}
            | {V1 + "memory.stat": "inactive_file 3\ntotal_inactive_file 1000000\n"},
            6_000_000,
            5_000_000,
        ),
        ("4:memory:/\n", {V1 + "memory.limit_in_bytes": "9223372036854771712"}, math.inf, 2**30),
        ("nonsense", {V2 + "memory.max": "5"}, math.inf, 2**30),
    ],
    ids=["none", "no limit", "version 2", "nested", "version 1", "version 1, no limit", "unreadable"],
)
def test_what_a_container_allows(tmp_path, groups, files, limit, free):
    there, now = memory_there(machine(tmp_path, groups, files))
    page = os.sysconf("SC_PAGE_SIZE")
    assert there == min(limit, page * os.sysconf("SC_PHYS_PAGES"))
    assert now == 3 * page + free


@pytest.mark.skipif(platform.system() == "Windows", reason="RLIMIT_AS is POSIX's")
def test_a_limit_of_the_address_space_is_a_limit():
    program = """
import resource
from tinygrad_llm.models.estimate import memory_there
resource.setrlimit(resource.RLIMIT_AS, (2**31, resource.RLIM_INFINITY))
print(*memory_there())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    there, free = map(int, done.stdout.split())
    assert 0 < free < there == 2**31


def test_a_system_that_says_nothing_has_no_limit(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "sysconf", raising=False)
    assert memory_there(tmp_path) == (math.inf, math.inf)


# ---- variants


def test_fewer_key_heads_and_another_hidden_width():
    """12 heads of 64: 4 key heads make matrices of 256 rows."""
    config = LlamaConfig(emb_dim=768, n_heads=12, n_kv_heads=4, hidden_dim=1000, qkv_bias=True)
    e = {m.name: m for m in estimate(config).modules}
    assert e["trf_blocks.att.W_key"].parameters == e["trf_blocks.att.W_value"].parameters == 256 * 769
    assert e["trf_blocks.att.W_query"].parameters == 768 * 769
    assert e["trf_blocks.ff.fc1"].parameters == e["trf_blocks.ff.fc3"].parameters == 1000 * 768


@pytest.mark.parametrize(
    ("window", "global_every", "full", "sliding"),
    [(None, None, 7, 0), (16, None, 0, 7), (16, 1, 7, 0), (16, 3, 2, 5), (16, 8, 0, 7), (5000, None, 0, 7)],
)
def test_windows(window, global_every, full, sliding):
    sizes = {"emb_dim": 768, "n_heads": 12, "n_layers": 7, "context_length": 100}
    config = LlamaConfig(**sizes, window=window, global_every=global_every)
    e, seen = estimate(config), min(window or 100, 100)
    assert e.parameters == estimate(LlamaConfig(**sizes)).parameters
    assert e.attention_flops_per_token == 12 * 768 * (full * 100 + sliding * seen)
    assert e.kv_cache_bytes == 2 * 768 * 4 * (full * 100 + sliding * seen)


def test_sizes_that_no_machine_holds():
    """Integers without end, and no work for each layer."""
    config = GPTConfig(n_layers=10**12, emb_dim=12 * 2**40, vocab_size=np.int64(2**62))
    assert estimate(config).parameters > 12 * 10**12 * (12 * 2**40) ** 2
    with pytest.raises(ConfigError, match="choose smaller sizes"):
        GPTModel(config)


# ---- bad input


def test_what_cannot_be():
    for options in ({"batch_size": 0}, {"bytes_per_number": 2.5}):
        with pytest.raises(ConfigError, match="positive integer"):
            estimate(PRESETS["124M"], **options)
    for options in ({"tokens": 0}, {"tokens": 1e9, "price": -1}, {"tokens": 1e9, "tflops": math.nan}):
        with pytest.raises(ConfigError, match="must be a positive number"):
            GPT3.training_cost(**options)


# ---- tinygrad-llm estimate


def test_the_command(capsys):
    assert main(["estimate", "--preset", "gpt3-175B"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "174,604,259,328" in out
    assert "3.142e+23 FLOPs" in out
    assert "$4,676,226" in out
    assert all(len(line) <= 110 for line in out.splitlines())


def test_the_command_with_other_sizes(capsys):
    argv = "estimate --preset stories15M --n-kv-heads 3 --no-tie-weights --batch-size 2 --tokens 1e9 --json"
    assert main(argv.split()) == 0
    answer = json.loads(capsys.readouterr().out)
    e = estimate(preset("stories15M", n_kv_heads=3, tie_weights=False), batch_size=2)
    assert answer["parameters"] == e.parameters
    assert answer["activation_bytes"] == e.activation_bytes
    assert answer["training"]["dollars"] == e.training_cost(1e9).dollars
    assert sum(m["copies"] * m["kv_cache_bytes"] for m in answer["modules"]) == e.kv_cache_bytes
    assert main(["estimate", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["training"] is None


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--n-heads", "7"], "n_heads 7"),
        (["--head-dim", "7"], "gpt has no option 'head_dim'"),
        (["--preset", "llama2-7B", "--n-kv-heads", "5"], "n_kv_heads 5 does not divide"),
        (["--emb-dim", "-1"], "emb_dim is -1"),
        (["--batch-size", "0"], "batch_size is 0"),
        (["--tokens", "nan"], "tokens is nan"),
        (["--tokens", "1e9", "--price", "0"], "price is 0.0"),
    ],
)
def test_bad_use(capsys, argv, message):
    assert main(["estimate", *argv]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err
