"""The words of a report, explained: those of the study's own names first, then every term that the page uses."""

from __future__ import annotations

import re

from analysis.tokenizers.frames import StudyFrames
from analysis.tokenizers.fronts import in_order
from analysis.tokenizers.rows import records
from results.schema import METRICS

from . import wording
from .page_data import metric_label

TERMS: dict[str, tuple[str, str]] = {
    "gFID": (
        r"gFID",
        "Fréchet distance of generated images to training images; lower is better. “No guidance”: sampled without "
        "classifier-free guidance",
    ),
    "rFID": (
        r"rFID(?! floor)",
        "the same distance of reconstructed held-out images to the held-out images themselves: how much the tokenizer "
        "loses",
    ),
    "rFID floor": (
        r"rFID floor|rfid_floor",
        "that of reconstructions, measured as gFID is; no perfect generator gets below",
    ),
    "FLOPs": (r"FLOPs", "floating-point operations of training, forward and backward, by closed formulas"),
    "tokenizer": (r"[Tt]okenizer", "stage 1: the model that turns an image into discrete tokens and back"),
    "generator": (r"[Gg]enerator", "stage 2: the transformer that predicts the tokens one after the other"),
    "codebook": (r"[Cc]odebook|\bcodes\b", "the codes that a token chooses from; their number is the codebook size"),
    "rate": (r"\brate\b|bits an image|bits / pixel", "bits that an image's tokens could carry: tokens × log₂ codes"),
    "output head": (r"output head", "the generator's last layer, which scores every code; more codes cost more"),
    "causal regulariser": (
        r"regulariser",
        "an added loss of stage 1 that makes tokens easier to predict from those before them (arXiv 2412.16326)",
    ),
    "budget": (r"\bbudget", "how much a training may cost, in images or FLOPs; one run is measured at several"),
    "Pareto front": (r"Pareto|\bfronts?\b", "the lowest value that any size and budget reaches at each compute"),
    "crossover": (r"[Cc]ross(over|es|ings?)?\b", "the compute at which the better of two tokenizers changes"),
    "compute multiplier": (
        r"[Cc]ompute multiplier",
        "compute that one needs divided by compute that the other needs for the same value; above 1 a saving",
    ),
    "interval": (
        r"interval|\b95 %",
        "a range that would hold the true value in 95 of 100 repetitions of the study with other seeds",
    ),
    "tokenizer seed": (r"tokenizer seed", "the random start of a tokenizer's training; repetitions differ in it"),
    "paired": (r"[Pp]aired", "compared run by run at the same seeds, so that what both share drops out"),
    "df": (r"\bdf \d", "degrees of freedom of a t interval: seeds less one"),
    "geometric mean": (r"[Gg]eometric mean", "mean of logarithms: what ratios are averaged by"),
    "hierarchical model": (
        r"[Hh]ierarchical",
        "one model for all pairs, with a variance between tokenizer seeds and one between runs of a tokenizer",
    ),
    "probability of being best": (
        r"best with|probability",
        "how often the pair has the lowest value among draws from the hierarchical model; never written as certain",
    ),
    "extrapolation": (
        r"[Ee]xtrapolat|by law|\bby the law\b",
        "a value beyond the longest run, which a fitted law predicts and nobody measured",
    ),
    "law": (r"\blaws?\b", "a formula of the metric in compute, here E + A C^−alpha, fitted to measured points"),
    "E": (r"\bE (free|value|\+)|E = ", "the floor of a law: what is left at unlimited compute"),
    "alpha": (r"\balpha\b", "the exponent of a law: how fast the metric falls with compute"),
    "converged": (r"\bconverged\b", "the fit ended at a minimum, to rounding"),
    "boundary": (r"\bboundary\b", "the fit ended on the edge of what the law allows"),
    "not identifiable": (r"not identifiable|not identified", "the points do not determine every parameter of the law"),
    "held out": (r"[Hh]eld out|held-out", "kept from a fit or a training, and only used to judge it"),
    "Huber": (r"Huber", "a loss that counts large residuals linearly, so that no single point dominates"),
    "R²": (r"R²", "share of the spread of log values that the law explains"),
    "p": (r"\bp = ", "how often a difference at least this large would appear if there were none"),
    "cross-entropy": (
        r"[Cc]ross-entrop",
        "what the generator's training minimises: nats per token. Nats per image and bits per pixel are the same in "
        "other units",
    ),
    "unigram-normalised": (r"[Uu]nigram", "cross-entropy less that of guessing tokens by frequency alone"),
    "perplexity": (r"perplexity", "how many equally frequent codes would be as varied as those used"),
    "PSNR": (r"PSNR", "peak signal-to-noise ratio of reconstructions in dB; higher is better"),
    "SSIM": (r"SSIM", "structural similarity of reconstructions, at most 1; higher is better"),
    "protocol": (r"[Pp]rotocol", "all that a value depends on besides the run: reference images, n, network, crop"),
    "guidance": (r"guidance", "classifier-free guidance, which trades variety of samples for fidelity; 1 is none"),
    "memorisation": (r"[Mm]emorisation|near cop", "samples that are nearer to a training image than fresh images are"),
    "trunk, decay": (r"trunk|decays?\b", "a run at constant learning rate, and its branches that anneal to a budget"),
    "nearest": (r"\bnearest training", "the training images closest to a sample in the network's features"),
    "flagged": (r"[Ff]lagged|[Ss]et aside", "kept in the data with a reason, and left out of every figure and answer"),
    "diverged": (r"\bdiverged\b", "a run whose loss was no number any more; it is counted, not compared"),
}  # fmt: skip
"""By term: the pattern that finds it on a page, and its meaning."""


_DISTANCES = {"gFID": "gfid", "rFID": "rfid", "rFID floor": "rfid_floor"}


def study_words(frames: StudyFrames) -> list[tuple[str, str]]:
    """The study's own names: its tokenizers and the sizes of its generators."""
    words = []
    families = frames.families.dropna(subset=["codebook_size", "tokens_per_image"])
    if len(families):
        first = records(families)[0]
        codes, tokens = f"{first['codebook_size']:.0f}", f"{first['tokens_per_image']:.0f}"
        text = f"a tokenizer with {codes} codes that makes {tokens} tokens of an image"
        if (families["regulariser_weight"] > 0).any():
            text += "; crt with a number: trained with the causal regulariser of that weight"
        words.append((str(first["family"]), text))
        words.append(("family", "tokenizers that differ in their seed alone; it is named after what they share"))
    points = frames.points
    sizes = in_order(points)
    if sizes:
        medians = points.groupby("size")["parameters_other"].median().loc[sizes].dropna()
        listed = wording.listing([f"{wording.images(median)} parameters" for median in medians])
        counts = f" ({listed} outside the vocabulary)" if listed else ""
        text = f"sizes of the generator, the transformer that predicts the tokens{counts}"
        words.append((wording.listing(sizes), text))
    metrics = set(frames.used["metric"])
    return words + [(term, TERMS[term][1]) for term, metric in _DISTANCES.items() if metric in metrics]


def terms_of(text: str, frames: StudyFrames) -> list[tuple[str, str]]:
    """Every term that a page's text uses with its meaning, in alphabetical order; metrics of the study included."""
    words = {term: meaning for term, (pattern, meaning) in TERMS.items() if re.search(pattern, text)}
    for metric in sorted(set(frames.used["metric"])):
        name = metric_label(metric)
        if metric in METRICS and name not in words and metric not in ("gfid", "rfid", "rfid_floor"):
            words[name] = METRICS[metric].meaning
    return sorted(words.items(), key=lambda item: item[0].lower())
