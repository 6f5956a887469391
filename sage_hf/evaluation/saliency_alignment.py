"""Where a model looks against where humans looked, as an `evaluate` module."""

from __future__ import annotations

import inspect
from typing import Any

import datasets
import evaluate
import numpy as np
from sklearn.metrics import roc_auc_score


class SaliencyAlignment(evaluate.Metric):
    """
    Agreement of a model's saliency maps with human ones (Bylinskii et al. 2019): CC, SIM, KL divergence, NSS and
    AUC-Judd, each a mean over pictures.

    A human map is compared as it is by CC, SIM and KL. NSS and AUC-Judd need fixations: the pixels where it reaches
    `fixation_threshold` of its maximum. For AUC-Judd every value of the model's map is a threshold and ties count one
    half, without the random jitter of the authors' Matlab code. Shuffled AUC takes the fixations of all other pictures
    as negatives, each as often as it occurs, instead of a random sample of them; so a map of the centre is at chance.

    A model's map that is constant says nothing: CC and NSS are 0, both AUCs 0.5, and one of zeros is uniform for SIM
    and KL. With a constant human map CC is 0 and, every pixel being fixated, NSS is 0 and AUC-Judd 0.5. Such pictures
    stay in the means and are counted. A human map of zeros is an error.

    Limitations:
        A high score says that maps look alike, not that the model relies on what they mark. SIM and KL depend on the
        zero level and the blur of a map, all but shuffled AUC reward a bias towards the centre, and a picture counts
        as much whether one person marked it or many. Maps are held as Python numbers, about 64 bytes a pixel of
        a pair: compare at the human maps' resolution or less.

    Example:

    ```python
    >>> from sage_hf.evaluation import SaliencyAlignment
    >>> scores = SaliencyAlignment(keep_in_memory=True).compute(
    ...     predictions=[[[0.6, 0.2], [0.2, 0.0]]], references=[[[1.0, 0.0], [0.0, 0.0]]]
    ... )
    >>> {name: round(value, 3) for name, value in scores.items() if name in ("cc", "sim", "kl", "nss", "auc_judd")}
    {'cc': 0.927, 'sim': 0.6, 'kl': 0.511, 'nss': 1.606, 'auc_judd': 1.0}

    ```
    """

    def _info(self) -> evaluate.MetricInfo:
        maps = datasets.List(datasets.List(datasets.Value("float64")))
        return evaluate.MetricInfo(
            description="Agreement of saliency maps with human ones: CC, SIM, KL divergence, NSS, AUC-Judd and "
            "shuffled AUC.",
            citation=CITATION,
            inputs_description=inspect.getdoc(self._compute),
            features=datasets.Features({"predictions": maps, "references": maps}),
            reference_urls=["https://arxiv.org/abs/1604.03605"],
        )

    def _compute(
        self, predictions: Any, references: Any, fixation_threshold: float = 0.5, shuffled: bool = False
    ) -> dict[str, float]:
        """
        Args:
            predictions (`list[list[list[float]]]`): a map for each picture, shape (height, width), finite and not
                negative, on any scale. Sizes may differ between pictures.
            references (`list[list[list[float]]]`): the human maps, likewise, each of the size of its prediction.
            fixation_threshold (`float`, *optional*, defaults to 0.5): share of a human map's maximum from which on a
                pixel counts as fixated, in (0, 1]. Any value suits a map of zeros and ones.
            shuffled (`bool`, *optional*, defaults to `False`): shuffled AUC too; two pictures or more, of one size.

        Returns:
            `dict[str, float]`:
            - `cc`: Pearson's correlation, in [-1, 1], higher is better.
            - `sim`: sum of the smaller of both maps, each scaled to a sum of 1; in [0, 1], higher is better.
            - `kl`: sum of Q ln(e + Q / (e + P)) with Q the human map, P the model's, both scaled to a sum of 1, and e
              2.2e-16; in nats, in [0, 36.1], lower is better.
            - `nss`: mean at the fixations of the map shifted to mean 0 and scaled to population deviation 1; any
              number, 0 is chance, higher is better.
            - `auc_judd`: chance that a fixated pixel outranks one that is not; in [0, 1], 0.5 is chance, higher is
              better.
            - `auc_shuffled`: with `shuffled`; as above, against the fixations of other pictures.
            - `constant_predictions`, `constant_references`: number of pictures with such a map.

        Raises:
            `ValueError`: no pictures; a map that is empty, not rectangular, not finite or negative; two maps of
                different sizes; a human map of zeros; a threshold out of range; shuffled AUC of one picture or of
                several sizes.
        """
        columns, pairs = _scores(predictions, references, fixation_threshold)
        if shuffled:
            fixations = [human >= fixation_threshold * human.max() for _, human in pairs]
            columns["auc_shuffled"] = _shuffled([model for model, _ in pairs], fixations)
        means = {name: float(np.mean(values)) for name, values in columns.items()}
        counts = {
            "constant_predictions": sum(np.ptp(model) == 0 for model, _ in pairs),
            "constant_references": sum(np.ptp(human) == 0 for _, human in pairs),
        }
        return means | {name: int(count) for name, count in counts.items()}


def alignment_scores(predictions: Any, references: Any, fixation_threshold: float = 0.5) -> dict[str, list[float]]:
    """
    The figures of [`SaliencyAlignment`] for each picture: `cc`, `sim`, `kl`, `nss`, `auc_judd`.

    Args:
        predictions (`list[numpy.ndarray]`): as for [`SaliencyAlignment`], (height, width) each.
        references (`list[numpy.ndarray]`): likewise.
        fixation_threshold (`float`, *optional*, defaults to 0.5): likewise.

    Raises:
        `ValueError`: as in [`SaliencyAlignment`].

    Example:

    ```python
    >>> from sage_hf.evaluation.saliency_alignment import alignment_scores
    >>> alignment_scores([[[0.6, 0.2], [0.2, 0.0]]], [[[1.0, 0.0], [0.0, 0.0]]])["auc_judd"]
    [1.0]

    ```
    """
    return _scores(predictions, references, fixation_threshold)[0]


def _scores(
    predictions: Any, references: Any, fixation_threshold: float
) -> tuple[dict[str, list[float]], list[tuple[np.ndarray, np.ndarray]]]:
    if not len(references):
        raise ValueError("There are no pictures. Give a prediction and a reference of at least one.")
    if not 0 < fixation_threshold <= 1:
        raise ValueError(f"fixation_threshold is {fixation_threshold}, expected a share of the maximum in (0, 1].")
    pairs = [_checked_pair(index, *maps) for index, maps in enumerate(zip(predictions, references, strict=True))]
    columns: dict[str, list[float]] = {"cc": [], "sim": [], "kl": [], "nss": [], "auc_judd": []}
    for model, human in pairs:
        fixated = human >= fixation_threshold * human.max()
        columns["cc"].append(float((_standardized(model) * _standardized(human)).mean()))
        p, q = _distribution(model), _distribution(human)
        columns["sim"].append(float(np.minimum(p, q).sum()))
        epsilon = np.finfo(np.float64).eps
        columns["kl"].append(float((q * np.log(epsilon + q / (epsilon + p))).sum()))
        columns["nss"].append(float(_standardized(model)[fixated].mean()))
        columns["auc_judd"].append(0.5 if fixated.all() else float(roc_auc_score(fixated.ravel(), model.ravel())))
    return columns, pairs


def _checked_pair(index: int, prediction: Any, reference: Any) -> tuple[np.ndarray, np.ndarray]:
    maps = []
    for name, rows in (("prediction", prediction), ("reference", reference)):
        widths = sorted({len(row) for row in rows})
        if len(widths) != 1 or widths == [0]:
            raise ValueError(
                f"The {name} of picture {index} has {len(rows)} rows of lengths {widths}, expected a map with rows of "
                "one length."
            )
        values = np.asarray(rows, dtype=np.float64)
        if not np.isfinite(values).all() or values.min() < 0:
            raise ValueError(
                f"The {name} of picture {index} holds NaN, infinity or a negative number, expected finite numbers "
                "from 0 on. Take the positive part, the magnitude, or shift the minimum to 0, and say which."
            )
        # On any scale: without this, sums and squares of very large or small numbers leave the range of floats.
        maps.append(values / values.max() if values.max() > 0 else values)
    if maps[0].shape != maps[1].shape:
        raise ValueError(
            f"Picture {index} has a prediction of shape {maps[0].shape} and a reference of shape {maps[1].shape}, "
            "expected the same. Resize the prediction to the reference."
        )
    if not maps[1].any():
        raise ValueError(f"The reference of picture {index} is zero everywhere: nothing is marked. Leave it out.")
    return maps[0], maps[1]


def _standardized(values: np.ndarray) -> np.ndarray:
    return np.zeros_like(values) if np.ptp(values) == 0 else (values - values.mean()) / values.std()


def _distribution(values: np.ndarray) -> np.ndarray:
    return values / values.sum() if values.any() else np.full_like(values, 1 / values.size)


def _shuffled(maps: list[np.ndarray], fixations: list[np.ndarray]) -> list[float]:
    shapes = {fixated.shape for fixated in fixations}
    if len(fixations) < 2 or len(shapes) > 1:
        raise ValueError(
            f"There are {len(fixations)} pictures of the sizes {sorted(shapes)}: shuffled AUC takes its negatives "
            "from other pictures, so it needs two or more of one size. Resize them, or leave shuffled out."
        )
    total = np.sum(fixations, axis=0, dtype=np.int64)
    areas = []
    for values, fixated in zip(maps, fixations, strict=True):
        others = total - fixated
        labels = np.concatenate([np.ones(fixated.sum()), np.zeros((others > 0).sum())])
        weights = np.concatenate([np.ones(fixated.sum()), others[others > 0]])
        ranked = np.concatenate([values[fixated], values[others > 0]])
        areas.append(float(roc_auc_score(labels, ranked, sample_weight=weights)))
    return areas


CITATION = """\
@article{bylinskii2019different,
  title = {What Do Different Evaluation Metrics Tell Us About Saliency Models?},
  author = {Bylinskii, Zoya and Judd, Tilke and Oliva, Aude and Torralba, Antonio and Durand, Fr{\\'e}do},
  journal = {IEEE Transactions on Pattern Analysis and Machine Intelligence},
  volume = {41},
  number = {3},
  pages = {740--757},
  year = {2019}
}"""
