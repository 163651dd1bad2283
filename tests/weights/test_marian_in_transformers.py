"""Our Transformers opened by transformers as Marians, theirs here, and PyTorch's own. Where these are not installed, skipped."""

import math

import numpy as np
import pytest
from reference.opened_there import in_float64, shaken, torch, transformers

import tinygrad_llm as tg
from tinygrad_llm.generation import beam_search, generate
from tinygrad_llm.models import make_model
from tinygrad_llm.ops import cross_entropy
from tinygrad_llm.rng import Generator
from tinygrad_llm.weights import load_pretrained, save_pretrained, torch_transformer
from tinygrad_llm.weights.seq2seq import from_transformers

pytestmark = pytest.mark.filterwarnings("ignore")
SIZES = {"vocab_size": 11, "context_length": 20, "emb_dim": 8, "n_heads": 2, "n_layers": 2, "n_decoder_layers": 1}
SIZES |= {"hidden_dim": 6, "positions": "halves", "start_id": 10, "pad_id": 10, "end_id": 0}
SOURCE = np.array([[5, 0, 7, 5, 4, 3], [1, 2, 9, 9, 9, 9], [2, 6, 3, 1, 9, 9]])
MASK = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0]])
TARGET = np.array([[10, 3, 1, 6], [10, 9, 2, 9], [10, 0, 5, 1]])
SEEN = {"input_ids": torch.tensor(SOURCE), "attention_mask": torch.tensor(MASK)}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Of PyTorch's: models as small as these gain nothing by more, and wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def ours(seed=3, **changes):
    return shaken(make_model("seq2seq", SIZES | changes, Generator(seed)).astype(np.float64).eval())


def opened(folder):
    model, info = transformers.MarianMTModel.from_pretrained(folder, dtype=torch.float64, output_loading_info=True)
    assert not any(info.values())
    return in_float64(model)


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


OPTIONS = {
    "one table": {},
    "two tables": {"share": "target", "source_vocab_size": 13, "activation": "gelu_erf"},
    "three tables": {"share": "none", "head_bias": True, "activation": "silu", "scale_embedding": False},
    "odd width": {"emb_dim": 9, "n_heads": 3, "activation": "gelu", "n_decoder_layers": None},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_ours_give_our_logits_gradients_and_ids_in_transformers(name, tmp_path):
    model = ours(**OPTIONS[name])
    save_pretrained(model, tmp_path / "a")
    theirs = opened(tmp_path / "a")
    expected, found = theirs(**SEEN, decoder_input_ids=torch.tensor(TARGET)).logits, model(SOURCE, TARGET, MASK)
    close(found.data, expected.detach().numpy())
    cross_entropy(found[:, :-1], targets=TARGET[:, 1:]).backward()
    torch.nn.functional.cross_entropy(expected[:, :-1].flatten(0, 1), torch.tensor(TARGET)[:, 1:].flatten()).backward()
    for block, layer in zip(model.encoder, theirs.model.encoder.layers, strict=True):
        close(block.att.W_key.weight.grad, layer.self_attn.k_proj.weight.grad.numpy())
    for block, layer in zip(model.decoder, theirs.model.decoder.layers, strict=True):
        close(block.cross_att.W_value.weight.grad, layer.encoder_attn.v_proj.weight.grad.numpy())
        close(block.ff.layers[2].weight.grad, layer.fc2.weight.grad.numpy())
    theirs.save_pretrained(tmp_path / "b")
    again = load_pretrained(tmp_path / "b", np.float64)[0]
    with tg.no_grad():
        np.testing.assert_array_equal(again(SOURCE, TARGET, MASK).data, found.data)


def written(row, end=0):
    ids = [int(i) for i in row][1:]
    return ids[: ids.index(end)] if end in ids else ids


@pytest.fixture(scope="module", params=range(12))
def pair(request):
    """A Marian of theirs whose texts end at different times, and the same here."""
    torch.manual_seed(request.param)
    config = transformers.MarianConfig(
        vocab_size=11, d_model=8, encoder_layers=1, decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=6, decoder_ffn_dim=6, max_position_embeddings=20, pad_token_id=10, decoder_start_token_id=10,
        eos_token_id=0, forced_eos_token_id=None, scale_embedding=True, activation_function="swish",
        share_encoder_decoder_embeddings=False, tie_word_embeddings=request.param % 2 == 0)  # fmt: skip
    theirs = transformers.MarianMTModel(config)
    with torch.no_grad():
        for p in theirs.parameters():
            p.copy_(torch.randn_like(p) * 0.7 + (p.ndim == 1) * 0.3)
        theirs.final_logits_bias[0, 0] = 1.5 * (request.param % 3)  # which the end has
    return in_float64(theirs)


def read_here(theirs, folder):
    theirs.save_pretrained(folder)
    return load_pretrained(folder, np.float64)[0].reading(SOURCE, MASK)


def test_greedy_ids_are_theirs(pair, tmp_path):
    found = generate(read_here(pair, tmp_path), [[10]] * 3, 12, stop_ids=[0])
    expected = pair.generate(**SEEN, max_new_tokens=12, do_sample=False)
    assert [[i for i in row[1:].tolist() if i >= 0] for row in found] == [written(row) for row in expected]


@pytest.mark.parametrize(("n_beams", "alpha"), [(4, 0.6), (4, 1.0), (3, 0.0), (2, 2.0)])
def test_beams_are_theirs(pair, n_beams, alpha, tmp_path):
    """Every text that they return, and its score but for the float32 in which they add."""
    reading = read_here(pair, tmp_path)
    options = {"num_beams": n_beams, "num_return_sequences": n_beams, "length_penalty": alpha, "early_stopping": False}
    made = pair.generate(
        **SEEN, max_new_tokens=12, do_sample=False, **options, output_scores=True, return_dict_in_generate=True
    )
    texts, scores = made.sequences.reshape(3, n_beams, -1), made.sequences_scores.reshape(3, n_beams)
    for i in range(3):
        found = beam_search(reading.of_rows([i]), [10], 12, n_beams, length_penalty=alpha, penalty="hf", stop_ids=[0])
        there = scores[i] > -1e8  # fewer than n_beams may have ended when theirs gives up
        assert len(found) >= int(there.sum())
        for hypothesis, row, score in zip(found, texts[i][there], scores[i][there].tolist(), strict=False):
            np.testing.assert_allclose(hypothesis.score, score, rtol=1e-5, atol=1e-5)
            assert hypothesis.ids == written(row)


def test_what_a_configuration_does_not_say_is_as_in_transformers():
    config, theirs = from_transformers({"model_type": "marian"}, "config.json")[0], transformers.MarianConfig()
    assert (config.vocab_size, config.source_vocabulary) == (theirs.decoder_vocab_size, theirs.vocab_size)
    assert (config.emb_dim, config.hidden_width, config.n_heads) == (theirs.d_model, theirs.encoder_ffn_dim, 16)
    assert (config.n_layers, config.decoder_layers) == (theirs.encoder_layers, theirs.decoder_layers)
    assert (config.context_length, config.drop_rate) == (theirs.max_position_embeddings, theirs.dropout)
    assert (config.start_id, config.end_id, config.pad_id) == (58100, theirs.eos_token_id, theirs.pad_token_id)
    assert (config.scale_embedding, config.share, config.activation) == (theirs.scale_embedding, "all", "gelu_erf")


@pytest.mark.parametrize("norm_first", [False, True])
def test_pytorchs_own_transformer(norm_first):
    torch.manual_seed(1)
    parts = {
        "src_embed": torch.nn.Embedding(11, 8),
        "tgt_embed": torch.nn.Embedding(12, 8),
        "transformer": torch.nn.Transformer(8, 2, 2, 1, 5, 0.0, "gelu", batch_first=True, norm_first=norm_first),
        "generator": torch.nn.Linear(8, 12),
    }
    theirs = torch.nn.ModuleDict(parts).double()
    hidden, later = torch.tensor(MASK == 0), torch.triu(torch.ones(4, 4, dtype=torch.bool), 1)
    scaled = [
        parts[name](torch.tensor(ids)) * math.sqrt(8) for name, ids in (("src_embed", SOURCE), ("tgt_embed", TARGET))
    ]
    masks = {"tgt_mask": later, "src_key_padding_mask": hidden, "memory_key_padding_mask": hidden}
    expected = parts["generator"](parts["transformer"](*scaled, **masks)).detach().numpy()
    arrays = {name: p.detach().numpy() for name, p in theirs.named_parameters()}
    model = torch_transformer.read(arrays, 2, norm_first, "gelu")
    with tg.no_grad():
        close(model(SOURCE, TARGET, MASK).data, expected)
    back = {name: torch.tensor(array) for name, array in torch_transformer.write(model).items()}
    theirs.load_state_dict(back, strict=True)
