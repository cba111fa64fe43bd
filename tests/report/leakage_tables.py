"""Made-up tables of the leakage stage: a strong reading, a confounded one, an absent one, and groups too small to show."""

from __future__ import annotations

import numpy as np

from biascxr.leakage.result import LeakageResult

PROBES = ("knn", "logistic")
# Patients per group; in all there are 600 test patients, and of the age groups some patients are in two.
GROUPS = {
    "sex": {"F": 280, "M": 320},
    "race": {"WHITE": 330, "BLACK": 150, "HISPANIC": 114, "ASIAN": 6},
    "age_group": {"0-40": 210, "40-60": 230, "60-80": 190},
    "view": {"AP": 240, "PA": 360},
    "insurance": {"Medicare": 300, "Medicaid": 300},
}
# Macro AUROC from the vectors, from recorded facts alone, within labels, within view, reweighted; and the verdict.
WORLD = {
    "sex": (0.93, 0.55, 0.925, 0.93, 0.92, "encoded, no dependence found"),
    "race": (0.81, 0.62, 0.80, 0.79, 0.77, "encoded, predictions depend on it"),
    "age_group": (0.84, 0.71, 0.80, 0.78, np.nan, "inconclusive"),
    "view": (0.98, 0.93, 0.62, np.nan, 0.71, "encoded, predictions depend on it"),
    "insurance": (0.505, 0.51, 0.50, 0.505, 0.50, "not detected"),
}
RECIPE = "leace+erm"
OWN = {"sex": 0.52, "race": 0.55, "age_group": 0.80, "view": 0.97, "insurance": 0.50}
HALF_WIDTH = 0.02


def made_up_tables(attributes: tuple[str, ...] = tuple(GROUPS), *, has_recipe: bool = True, groups=None) -> LeakageResult:
    """Returns tables as the stage would leave them.

    Args:
        attributes: which of `GROUPS`.
        has_recipe: also a recipe with a representation of its own, under which logistic regression reads little of sex and
            KNN still reads it.
        groups: test patients per group, in place of `GROUPS`.
    """
    groups = groups or {a: GROUPS[a] for a in attributes}
    recipes = ("erm", RECIPE) if has_recipe else ("erm",)
    return LeakageResult.of(
        readings=_readings(groups, has_recipe=has_recipe),
        roc=_roc(groups),
        confusion=_confusion(groups),
        dependence=[row for a in groups for row in _dependence(a, groups[a])],
        verdicts=[_verdict(recipe, a) for recipe in recipes for a in groups],
        curves=_curves(groups),
        modes=_modes(groups),
        panels=_panels(groups),
    )


def _n(groups: dict[str, int]) -> int:
    return min(600, sum(groups.values()))


def _reading(representation, attribute, probe, control, value, groups, p_value=np.nan) -> list[dict]:
    rows = []
    for i, (group, n) in enumerate([*groups.items(), ("macro", _n(groups))]):
        shift = 0 if group == "macro" or len(groups) == 2 else 0.03 * (i % 3 - 1)
        own = min(value + shift, 0.99)
        width = 0.03 if control == "shuffled" else HALF_WIDTH
        rows.append(
            {
                "representation": representation, "attribute": attribute, "probe": probe, "control": control, "group": group,
                "auroc": own, "low": own - width, "high": min(own + width, 0.995), "p_value": p_value, "n": 2 * _n(groups),
                "n_group": 2 * n, "n_patients": _n(groups), "n_group_patients": n,
                "setting": "20" if probe == "knn" else "0.01",
            }
        )  # fmt: skip
    return rows


def _readings(groups, *, has_recipe) -> list[dict]:
    rows = []
    for attribute, own in groups.items():
        value, alone, label, view, reweighted, _ = WORLD[attribute]
        for probe in PROBES:
            less = 0.02 if probe == "knn" and value > 0.6 else 0.0
            p = 0.001 if value > 0.6 else 0.4
            rows += _reading("vectors", attribute, probe, "none", value - less, own, p)
            for control, read in (
                ("shuffled", 0.5), ("covariates", alone), ("within_label", label), ("within_view", view),
                ("reweighted", reweighted),
            ):  # fmt: skip
                rows += _reading("vectors", attribute, probe, control, read, own)
            if has_recipe:
                left = 0.88 if (probe, attribute) == ("knn", "sex") else OWN[attribute]
                rows += _reading(RECIPE, attribute, probe, "none", left, own, p)
    if "race" in groups:
        rows += _reading("vectors", "race", "encoder", "none", 0.94, groups["race"], 0.001)
    return rows


def _roc(groups) -> list[dict]:
    fpr = np.round(np.arange(0, 1.01, 0.02), 2)
    return [
        {"representation": "vectors", "attribute": a, "probe": probe, "group": g, "fpr": x, "tpr": x ** (1 / WORLD[a][0] - 1),
         "n": 2 * _n(own), "n_group_patients": n}
        for a, own in groups.items() for probe in PROBES for g, n in own.items() for x in fpr
    ]  # fmt: skip


def _confusion(groups) -> list[dict]:
    rows = []
    for a, own in groups.items():
        for probe in PROBES:
            for g, n in own.items():
                rest = (1 - WORLD[a][0]) / (len(own) - 1)
                rows += [
                    {"representation": "vectors", "attribute": a, "probe": probe, "group": g, "read_as": h,
                     "share": WORLD[a][0] if g == h else rest, "n": 2 * n, "n_patients": n}
                    for h in own
                ]  # fmt: skip
    return rows


def _dependence(attribute, groups) -> list[dict]:
    depends = "predictions depend" in WORLD[attribute][-1]
    rows = []
    for evidence, less in (("given_label", 0.0), ("given_label_and_covariates", 0.03)):
        for i, group in enumerate(groups):
            value = 0.5 + (0.09 - less if depends else 0.01) * (-1) ** i
            p = 0.002 if depends else 0.6
            rows.append(_evidence(attribute, evidence, "auroc", group, value, 0.03, p=p, margin=0.05, control=(0.47, 0.53)))
    for measure, value, control in (
        ("rms_logit_change", 0.42 if depends else 0.05, (0.03, 0.12)), ("auroc_change", -0.01, (-0.02, 0.01)),
        ("log_loss_change", 0.02, (-0.01, 0.04)), ("group_difference_change", 0.08, (-0.02, 0.03)),
    ):  # fmt: skip
        rows.append(
            _evidence(attribute, "frozen_head", measure, "macro", value, 0.02, p=0.004 if depends else 0.5, control=control)
        )
    rows += _trained_anew(attribute)
    return rows


def _trained_anew(attribute) -> list[dict]:
    """Rows as `--dependence full` leaves them: of the vectors, whatever the recipes."""
    rows = []
    for form in ("linear", "mlp"):
        for erasure in ("marginal", "conditional"):
            rows.append(_evidence(attribute, f"retrained_{form}", f"auroc_change_{erasure}", "macro", -0.01, 0.008))
            rows.append(_evidence(attribute, f"retrained_{form}", f"group_difference_change_{erasure}", "macro", 0.03, 0.02))
    for done, value in (("before", WORLD[attribute][0]), ("marginal", 0.55), ("conditional", 0.6)):
        rows.append(_evidence(attribute, "retrained_linear", f"readable_knn_{done}", "macro", value, 0.02))
    for s in (-2, -1, 0, 1, 2):
        rows.append(_evidence(attribute, "dose_response", "encoding", f"s = {s}", 0.7 + 0.05 * s, 0.01))
        rows.append(_evidence(attribute, "dose_response", "unfairness", f"s = {s}", 0.2 + 0.04 * s, 0.01))
    rows.append(_evidence(attribute, "dose_response", "spearman", "macro", 0.8, 0.1, p=0.004) | {"n": 15})
    return [row | {"recipe": "vectors"} for row in rows]


def _evidence(attribute, evidence, measure, group, value, width, *, p=np.nan, margin=np.nan, control=(np.nan,) * 2) -> dict:
    return {
        "recipe": "erm", "attribute": attribute, "evidence": evidence, "measure": measure, "label": "macro", "group": group,
        "value": value, "low": value - width, "high": value + width, "control_low": control[0], "control_high": control[1],
        "p_value": p, "margin": margin, "n": 1200,
    }  # fmt: skip


def _verdict(recipe, attribute) -> dict:
    value, *_, verdict = WORLD[attribute]
    if recipe == RECIPE:
        value, verdict = OWN[attribute], "not detected" if OWN[attribute] < 0.53 else "inconclusive"
    return {
        "recipe": recipe, "attribute": attribute, "verdict": verdict, "probe": "logistic", "auroc": value,
        "low": value - HALF_WIDTH, "high": value + HALF_WIDTH, "p_value": 0.001, "margin": 0.55,
        "evidence": "given_label_and_covariates; frozen_head" if "depend on it" in verdict else "",
        "reason": f"A made-up reason for {attribute}.",
    }  # fmt: skip


def _curves(groups) -> list[dict]:
    rows = []
    kinds = {
        "training patients": ([50, 100, 200, 400, 800, 1600], "patients"), "components": ([1, 2, 4, 8, 16, 32, 64, 128], ""),
        "block": ([1, 2, 3, 4, 5], ""), "low_pass": ([10, 25, 50, 100], "diameter kept, of 256"),
        "noise": ([0.05, 0.1, 0.25, 0.5], "deviation, of full range"), "crop": ([0.25, 0.5, 0.75], "side kept"),
    }  # fmt: skip
    blocks = ["pool1", "conv2_block6_concat", "conv3_block12_concat", "conv4_block24_concat", "conv5_block16_concat"]
    for kind, (amounts, unit) in kinds.items():
        for a in groups:
            for i, amount in enumerate(amounts):
                share = (i + 1) / len(amounts) if kind != "noise" else 1 - i / len(amounts)
                value = 0.5 + (WORLD[a][0] - 0.5) * share**0.4
                rows.append(
                    {"attribute": a, "probe": "logistic", "kind": kind, "amount": amount, "unit": unit,
                     "block": blocks[i] if kind == "block" else "", "auroc": value, "low": value - 0.02, "high": value + 0.02,
                     "n_train_patients": amount if kind == "training patients" else 1600}
                )  # fmt: skip
    return rows


def _modes(groups) -> list[dict]:
    rows = []
    named = [("attribute", a, g, n) for a, own in groups.items() for g, n in own.items()] + [("label", "Edema", "positive", 90)]
    for kind, by, group, n in named:
        for mode in (1, 2, 3, 4):
            ks = (WORLD[by][0] - 0.5 if kind == "attribute" else 0.3) / mode
            p = 1e-6 if ks > 0.1 else 0.4
            rows.append(
                {"kind": kind, "by": by, "group": group, "mode": mode, "explained": 0.2 / mode, "ks": ks, "p_value": p,
                 "p_adjusted": min(1.0, 5 * p), "n": 4 * n + 100, "n_patients": n}
            )  # fmt: skip
    return rows


def _panels(groups) -> list[dict]:
    rows = []
    side = np.arange(-3, 3.1, 0.75)
    named = [("attribute", a, g, n, i) for a, own in groups.items() for i, (g, n) in enumerate(own.items())]
    named += [("label", "Edema", g, n, i) for i, (g, n) in enumerate((("negative", 510), ("positive", 90)))]
    for method in ("pca", "pca_3_4", "tsne"):
        for kind, by, group, n, i in named:
            for x in side:
                for y in side:
                    density = np.exp(-((x - 0.8 * i + 0.8) ** 2 + y**2) / 2)
                    if (count := int(n * 0.09 * density)) >= 10:
                        rows.append(
                            {"method": method, "kind": kind, "by": by, "group": group, "x": x, "y": y, "n_patients": count}
                        )
    return rows
