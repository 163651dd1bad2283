"""A BERT of ours asked by transformers, in its own ways. Skipped where it is not installed (extra `reference`)."""

import numpy as np
import pytest
from reference.opened_there import transformers

from tinygrad_llm.models import make_model
from tinygrad_llm.rng import Generator
from tinygrad_llm.text import WordPieceTokenizer, story
from tinygrad_llm.tuning.encoder import Encoder
from tinygrad_llm.weights import save_pretrained

pytestmark = pytest.mark.filterwarnings("ignore")
TEXTS = ["Una [MASK] the lamp.", "[MASK]!", "The lamp was [MASK], and Una went home", "It is un[MASK] of her."]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    tokenizer = WordPieceTokenizer.train(story(), 300)
    sizes = {"context_length": 32, "emb_dim": 24, "n_heads": 3, "n_layers": 2, "init": "pytorch", "tie_weights": False}
    model = make_model("bert", {"vocab_size": tokenizer.vocab_size, **sizes}, Generator(1)).eval()
    path = tmp_path_factory.mktemp("encoder") / "bert"
    save_pretrained(model, path, tokenizer)
    return path


def test_candidates_are_those_of_the_pipeline_fill_mask(folder):
    ask, encoder = transformers.pipeline("fill-mask", model=str(folder), top_k=5), Encoder.load(folder)
    for text in TEXTS:
        there = ask(text)
        here = encoder.candidates(text)
        assert [found["token_str"] for found in there] == [token for token, _ in here]
        np.testing.assert_allclose([found["score"] for found in there], [p for _, p in here], rtol=1e-4)


def test_vectors_are_means_of_its_last_hidden_states(folder):
    encoder = Encoder.load(folder)
    model = transformers.BertModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    texts = ["Una lifted the lamp.", "home", "The lamp was lit, and Una went home to the harbour."]
    read = tokenizer(texts, padding=True, return_tensors="pt")
    states = model(**read).last_hidden_state.detach().numpy()  # (N, T, C)
    mask = read["attention_mask"].numpy()[:, :, None]
    mean = (states * mask).sum(1) / mask.sum(1)
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    np.testing.assert_allclose(encoder.embed(texts), mean, rtol=1e-4, atol=1e-5)
