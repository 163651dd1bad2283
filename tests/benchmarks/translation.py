"""What a translator has to beat on sentences of phrases.py that hold combinations of words which are kept from training.

python tests/benchmarks/translation.py [--train 20000] [--test 2000]      # exact match and BLEU of each, then by pattern
"""

import argparse

from tinygrad_llm.evaluation.translation import translation_baselines, translation_scores
from tinygrad_llm.text.pairs import Pair
from tinygrad_llm.text.phrases import pattern_of, phrases

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--train", type=int, default=20_000)
parser.add_argument("--test", type=int, default=2_000)
args = parser.parse_args()
train, test = (
    [Pair(*pair) for pair in phrases(1, n, split)] for n, split in ((args.train, "train"), (args.test, "test"))
)
sources = [pair.source for pair in test]
for name, found in translation_baselines(train, sources).items():
    scores = translation_scores([pair.targets for pair in test], found, [pattern_of(source) for source in sources])
    print(name, *scores.lines(), sep="\n")
