"""Learning a projection of stored vectors from labels: linear discriminant analysis, joined with the vector itself.

Owns how the matrix is fitted, and how its strength is chosen and judged on photographs and classes that it did not see. Does not
own which labels there are (`reducing`), nor what becomes of the matrix (`autoencoder.Reducer`, `publishing`).

The discriminant axes of k classes are k numbers, by which those classes are told apart and everything else is lost. So they do not
replace a vector x but stand beside it: [x, b·xA], A scaled so that labelled vectors have length 1 on average. b is the *strength*. All
else that the collection holds takes part as one more class, "none of these", so that the axes also tell the classes from it.
docs/reducers.md has the figures. Source: Fisher's discriminant analysis with a shrunk covariance, as scikit-learn's
`LinearDiscriminantAnalysis` has it.

    python autoencoder.py --reducer projection
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Change:
    """mAP 0…1 of `images` photographs of `classes` classes that the fit did not see, by the vectors before and after."""

    before: float
    after: float
    images: int
    classes: int

    @property
    def gain(self) -> float:
        """How much the mAP rises; below 0 where it falls."""
        return self.after - self.before
