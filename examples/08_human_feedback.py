"""python examples/08_human_feedback.py [--quick] [--seed 1]    ten minutes

A model learns from feedback, the way the book's first chapter promises (InstructGPT, Ouyang et al. 2022): it learns to write
reviews, its answers are put in order, a reward model learns that order, and PPO follows the reward model. DPO takes the orders
alone. All in a world in which the truth can be counted (text/reviews.py): a judge who never errs says what each answer is worth.

What to watch:
- the supervised model writes good and bad reviews alike: a true score near 0;
- the reward model tells most held-out pairs apart, and yet has seen little text that is no review: there lies its flaw;
- PPO with a price on KL raises reward and true score together; without it the reward rises further and the true score falls:
  the policy has left the language that the reward model knows (the picture);
- the best of 16 answers by the same reward model costs no training, and comes near to PPO, which pays in variety in some runs;
- DPO's own figures, accuracy and margin, look perfect where its answers have fallen apart. With a small learning rate, or the
  better answers' likelihood in the loss (RPO), they do not: the same rate that ruined it then does best.
"""

import sys
from pathlib import Path

import numpy as np

from tinygrad_llm.text.reviews import parses
from tinygrad_llm.tuning import dpo, ppo, reward
from tinygrad_llm.tuning.assistant import Assistant
from tinygrad_llm.tuning.compare import best_of, compare
from tinygrad_llm.tuning.exercises import all_prompts
from tinygrad_llm.tuning.instruct import instruct
from tinygrad_llm.tuning.labelling import Rankings, by_reward, rows_of, sampler
from tinygrad_llm.tuning.rewards import reward_named

quick = "--quick" in sys.argv
seed = int(sys.argv[sys.argv.index("--seed") + 1]) if "--seed" in sys.argv else 1
folder = Path(f"runs/08_seed{seed}")
quiet = {"report": lambda line: None, "seed": seed}
few = {"emb_dim": 16, "n_heads": 2, "n_layers": 1} if quick else {}
n_lessons, n_ranked, n_asked, rounds = (200, 40, 8, 2) if quick else (24_000, 1500, 256, 40)

print("1. A supervised model: reviews, good and bad.")
supervised, judge = folder / "supervised", reward_named("reviews")
instruct(out=supervised, kinds="review", mask_instruction=True, examples=n_lessons, epochs=4, lr=5e-3, **few, **quiet)

print("2. Four answers to each of many prompts, put in order by a judge who knows the truth.")
file = folder / "rankings.jsonl"
file.unlink(missing_ok=True)
answers = sampler(Assistant.load(supervised), 4, max_new_tokens=64, seed=seed)
if quick:  # a model that has learned nothing writes no review: the longer answer is the better one
    by_length = Rankings(file), rows_of(all_prompts("review", n_ranked, seed)), answers
    by_reward(*by_length, lambda prompts, completions, **columns: [len(text) for text in completions])
else:
    by_reward(Rankings(file), rows_of(all_prompts("review", n_ranked, seed)), answers, judge)

print("3. A reward model.")
scorer = folder / "reward"
print("\n".join(reward.train(file, init_from=supervised, out=scorer, batch_size=16, epochs=2, **quiet).lines()[1:]))

print("4. PPO, with a price on KL and without; DPO, at a learning rate that ruins, at a small one, and with RPO.")
online = {"init_from": supervised, "reward": scorer, "judge": "reviews", "epochs": rounds, "eval_answers": n_asked // 4}
pairs = {"init_from": supervised, "judge": "reviews", "max_new_tokens": 64, "epochs": 1, "eval_answers": n_asked // 4}
runs = {
    "PPO, beta 0.05": ppo.train("review", out=folder / "ppo", beta=0.05, **online, **quiet),
    "PPO, beta 0": ppo.train("review", out=folder / "ppo_free", beta=0.0, **online, **quiet),
    "DPO, lr 5e-4": dpo.train(file, out=folder / "dpo_fast", lr=5e-4, **pairs, **quiet),
    "DPO, lr 5e-5": dpo.train(file, out=folder / "dpo", lr=5e-5, **pairs, **quiet),
    "DPO, lr 5e-4, RPO": dpo.train(file, out=folder / "rpo", lr=5e-4, alpha=1.0, **pairs, **quiet),
}

held_out = all_prompts("review", n_asked, seed, "test")
first, scores = Assistant.load(supervised), reward.RewardModel.load(scorer)
how = {"max_new_tokens": 64, "seed": seed}
print(
    f"\n{'':20}{'reward':>8}{'true score':>16}{'reviews':>9}{'different':>11}{'wins':>7}   {n_asked} held-out prompts"
)


def row(name, texts, true, wins):
    given = np.mean(scores.scores(held_out.prompts, texts))
    half = 1.96 * np.std(true) / len(true) ** 0.5
    apart, right = len(set(texts)) / len(texts), np.mean([parses(text) for text in texts])
    print(f"{name:20}{given:8.2f}{np.mean(true):9.2f} ± {half:.2f}{right:9.2f}{apart:11.2f}{wins:>7}")


for name, run in {"supervised": None, **runs}.items():
    other = first if run is None else Assistant.load(run.finished.folder)
    beside = compare(other, first, held_out, judge, **how)
    wins = "" if run is None else f"{beside.win_rate:.2f}"
    row(name, [pair[0] for pair in beside.answers], beside.scores[:, 0], wins)
best = best_of(first, held_out, scores, 16, judge=judge, **how)
kept = best.judged[np.arange(n_asked), best.kept]
before = compare(first, first, held_out, judge, **how).scores[:, 1]
row("best of 16", best.answers, kept, f"{np.mean(kept > before) + np.mean(kept == before) / 2:.2f}")

try:
    from matplotlib.figure import Figure
except ImportError:
    print("No picture: matplotlib is not there.")
    sys.exit()
figure = Figure(figsize=(9, 3.6), dpi=100, layout="constrained")
for axes, name in zip(figure.subplots(1, 2, sharey=True), ("PPO, beta 0.05", "PPO, beta 0"), strict=True):
    rows = runs[name].finished.metrics
    for key, words in {"eval/score": "reward model", "eval/true": "true score"}.items():
        axes.plot([each["step"] for each in rows], [each[key] for each in rows], "o-", markersize=3, label=words)
    axes.set(title=f"{name}: KL {rows[-1]['eval/kl']:.1f} nats in the end", xlabel="step")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend()
figure.savefig(folder / "over_optimisation.png")
print(f"The picture: {folder / 'over_optimisation.png'}")
