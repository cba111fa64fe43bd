"""The rule about vectors: no image of test is, to the encoder, an image of train again."""

from __future__ import annotations

import numpy as np
import pandas as pd

from biascxr.cohort.contract.base import Evidence, Finding
from biascxr.cohort.contract.near_copies import near_copies
from biascxr.cohort.contract.words import counted, percent, some
from biascxr.config import SPLITS

COSINE = 0.999
MAX_SHARE = 0.01


def near_duplicate_vectors(evidence: Evidence) -> list[Finding]:
    """Finds images that are nearly the same to the encoder and lie in different splits.

    The mean of all vectors is taken off first: the vectors of one network share a large part (all that pass a ReLU are
    positive), so that without it any two have a cosine near 1. An untrained encoder is not looked at: what it finds alike
    says nothing. Augmented views are not either, they are where their image is.

    Splits are by patient, so every such pair is two patients: one person under two ids, a film filed twice, or films so
    empty that all of them look alike. A few do no harm and are a warning. Where more than 1% of the test images have their
    copy in train, a model can score by remembering them, and that is an error.
    """
    cohort, embeddings = evidence.cohort, evidence.embeddings
    if not embeddings.card.get("is_trained", True):
        return []
    rows = np.flatnonzero(embeddings.view_id == 0)
    ids = embeddings.image_id[rows]
    split = cohort.table["split"].iloc[pd.Index(cohort.table["image_id"]).get_indexer(ids)]
    code = pd.Index(SPLITS).get_indexer(split)
    result = near_copies(embeddings.vectors, code, rows=rows, n_groups=len(SPLITS), cosine=COSINE)
    n = int(result.found.any(axis=1).sum())
    if not n:
        return []
    test, train = SPLITS.index("test"), SPLITS.index("train")
    n_test = int(result.found[code == test, train].sum())
    share = n_test / max((code == test).sum(), 1)
    pairs = sorted(result.pairs, key=lambda pair: {code[pair[0]], code[pair[1]]} != {test, train})  # those of test first
    return [
        Finding(
            "near_duplicate_vectors",
            is_error=bool(share > MAX_SHARE),
            count=n,
            message=f"{counted(n, 'image')} with a near copy in another split (cosine above {COSINE} once the mean is taken "
            f"off), all of them under another patient's id; {percent(share) if n_test else 'none'} of the test images have "
            "theirs in train.",
            advice="Look at a few pairs: films filed twice are to be left out of the table, one person under two ids is to get "
            "one id.",
            examples=some(f"{ids[a]} ~ {ids[b]}" for a, b in pairs),
        )
    ]
