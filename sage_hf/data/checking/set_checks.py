"""Checks of a dataset as a whole: from what was surveyed to what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .duplicates import Duplicates
from .stats import DatasetStats
from .survey import Survey

EXAMPLES = 5
CHANCE = 0.01
"""A class without maps is reported if that had a lower probability by chance."""
CENTRE_CORRELATION, CENTRE_DISTANCE = 0.8, 0.35
"""Maps are called centred from this correlation on, if their mass is nearer to the centre than this."""


@dataclass(frozen=True)
class Found:
    """What a check found: how much, and some of it."""

    count: int
    examples: list[str]


@dataclass(frozen=True)
class Whole:
    """What checks of the whole dataset look at."""

    survey: Survey
    stats: DatasetStats
    exact: Duplicates
    """Rows with the same picture."""
    near: Duplicates
    """Rows whose pictures look alike."""


def no_rows(whole: Whole) -> Found:
    return Found(int(whole.stats.rows == 0), [])


def no_maps(whole: Whole) -> Found:
    return Found(int(whole.stats.rows > 0 and not sum(whole.survey.annotated.values())), [])


def missing_label(whole: Whole) -> Found:
    survey = whole.survey
    labelled = any(survey.unlabelled[split] < survey.rows[split] for split in survey.splits)
    # Where a split has no labels at all, they are hidden, as in the test split of a challenge.
    splits = [split for split in survey.splits if not labelled or survey.unlabelled[split] < survey.rows[split]]
    examples = [example for split in splits for example in survey.unlabelled_examples.get(split, [])]
    return Found(sum(survey.unlabelled[split] for split in splits), examples)


def rare_class(whole: Whole) -> Found:
    rare = {name: sum(one.rows.values()) for name, one in whole.stats.classes.items()}
    # A sample may just have missed a class.
    said = [] if whole.stats.sampled else [f"class {name!r}: {rows} rows" for name, rows in rare.items() if rows < 2]
    return Found(len(said), [text.replace("1 rows", "1 row") for text in said])


def class_without_maps(whole: Whole) -> Found:
    return _classes_apart(whole, blank=False)


def class_of_blank_maps(whole: Whole) -> Found:
    return _classes_apart(whole, blank=True)


def _classes_apart(whole: Whole, *, blank: bool) -> Found:
    """
    Classes that can be told by having no map that marks anything: with maps that are stored all the same, or without.
    With a share p of annotated rows in the other classes, n rows have none by chance with probability (1 - p)^n.
    """
    said = []
    classes = whole.stats.classes
    for name, one in classes.items():
        rows, others = sum(one.rows.values()), [other for key, other in classes.items() if key != name]
        if sum(one.annotated.values()) or not rows or bool(sum(one.blank.values())) != blank:
            continue
        other_rows = sum(sum(other.rows.values()) for other in others)
        share = sum(sum(other.annotated.values()) for other in others) / max(other_rows, 1)
        if (1 - share) ** rows < CHANCE:
            said.append(f"class {name!r}: none of {rows} rows, {share:.0%} of the rows of other classes")
    return Found(len(said), said)


def centre_bias(whole: Whole) -> Found:
    bias = whole.stats.centre_bias
    # Of fewer maps, the mean says nothing about others.
    if bias is None or len(whole.survey.coverage) < 20:
        return Found(0, [])
    centred = bias.correlation >= CENTRE_CORRELATION and bias.distance <= CENTRE_DISTANCE
    text = (
        f"correlation of the mean map with a centred Gaussian {bias.correlation:.2f}, mean distance from the centre "
    )
    return Found(int(centred), [f"{text}{bias.distance:.2f} of half the diagonal"] if centred else [])


def duplicates_across_splits(whole: Whole) -> Found:
    found = whole.exact
    return Found(found.across, _pairs(whole.survey, found.across_examples))


def near_duplicates_across_splits(whole: Whole) -> Found:
    found = whole.near
    return Found(found.across, _pairs(whole.survey, found.across_examples, "looks like"))


def duplicates_within_split(whole: Whole) -> Found:
    found = whole.exact
    return Found(found.within, _pairs(whole.survey, found.within_examples))


def near_duplicates_within_split(whole: Whole) -> Found:
    found = whole.near
    return Found(found.within, _pairs(whole.survey, found.within_examples, "looks like"))


def duplicate_labels(whole: Whole) -> Found:
    """Pictures that occur with several labels; none, as in a hidden test split, is no other label."""
    survey = whole.survey
    digests, labels = np.asarray(survey.digests), np.asarray(survey.label_of)
    labelled = np.flatnonzero(labels != survey.labels.get(None, -1))
    order = labelled[np.lexsort((labels[labelled], digests[labelled]))]
    same = digests[order][1:] == digests[order][:-1]
    differ = np.flatnonzero(same & (labels[order][1:] != labels[order][:-1]))
    pairs = [(int(order[place]), int(order[place + 1])) for place in differ[:EXAMPLES]]
    return Found(len(np.unique(digests[order][differ])), _pairs(survey, pairs, labels=True))


def _pairs(survey: Survey, pairs: list[tuple[int, int]], relation: str = "=", *, labels: bool = False) -> list[str]:
    names = {number: ", ".join(label or ()) or "none" for label, number in survey.labels.items()}
    said = []
    for one, other in pairs:
        rows = [
            survey.where(place) + (f": {names[survey.label_of[place]]}" if labels else "")
            for place in sorted((one, other))
        ]
        said.append(f" {relation} ".join(rows))
    return said


SetCheck = Callable[[Whole], Found]
