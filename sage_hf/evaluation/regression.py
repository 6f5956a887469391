"""Numbers: scikit-learn's figures under the names that the field uses, as an `evaluate` module."""

from __future__ import annotations

import inspect
from typing import Any

import datasets
import evaluate
import numpy as np
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error


class Regression(evaluate.Metric):
    """
    Mean absolute error and root mean squared error, in the labels' own unit, and the coefficient of determination R2,
    at most 1; means over the outputs if there are several. R2 needs two rows.

    Limitations:
        Outputs with larger numbers rule the means of both errors: scale them alike. R2 compares with the mean of the
        scored rows, and where these are all equal it is 1 if every prediction is right and 0 if not.

    Example:

    ```python
    >>> from sage_hf.evaluation import Regression
    >>> scores = Regression(keep_in_memory=True).compute(predictions=[[1.0], [4.0]], references=[[1.0], [3.0]])
    >>> {name: round(value, 3) for name, value in scores.items()}
    {'mean_absolute_error': 0.5, 'root_mean_squared_error': 0.707, 'r2': 0.5}

    ```
    """

    def _info(self) -> evaluate.MetricInfo:
        numbers = datasets.List(datasets.Value("float64"))
        return evaluate.MetricInfo(
            description="Mean absolute error, root mean squared error and R2 of a regression.",
            citation="",
            inputs_description=inspect.getdoc(self._compute),
            features=datasets.Features({"predictions": numbers, "references": numbers}),
        )

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        """
        Args:
            predictions (`list[list[float]]`): outputs, shape (rows, outputs), finite.
            references (`list[list[float]]`): the right numbers, likewise.

        Returns:
            `dict[str, float]`: means over the outputs.
            - `mean_absolute_error`: in the labels' unit, 0 or more, lower is better.
            - `root_mean_squared_error`: in the labels' unit, 0 or more, lower is better.
            - `r2`: at most 1, 0 for a model that gives the mean, higher is better; left out of a single row.

        Raises:
            `ValueError`: no rows; rows of different lengths; numbers that are not finite.
        """
        widths = sorted({len(row) for rows in (predictions, references) for row in rows})
        if len(widths) != 1 or widths == [0]:
            raise ValueError(
                f"Rows of predictions and references have {widths} numbers, expected one for each output in each row."
            )
        for name, rows in (("Predictions", predictions), ("References", references)):
            if not np.isfinite(np.asarray(rows, dtype=np.float64)).all():
                raise ValueError(f"{name} hold NaN or infinity, expected finite numbers. Leave such rows out.")
        scores = {
            "mean_absolute_error": mean_absolute_error(references, predictions),
            "root_mean_squared_error": root_mean_squared_error(references, predictions),
        }
        if len(references) > 1:
            scores["r2"] = r2_score(references, predictions)
        return {name: float(value) for name, value in scores.items()}
