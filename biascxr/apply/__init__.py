"""`biascxr apply`: a run's trained recipes on another cohort or site, external evaluation. Nothing is fitted.

    a finished run ─┐
    meta.csv ─▶ cohort ─▶ evaluated rows ─▶ records ─▶ embeddings ─▶ predictions ─▶ audit, here and at home ─▶ report.html

Every stage is that of a run (`pipeline`), in a folder of its own, and is reused while it is unchanged.
"""

from biascxr.apply.settings import ApplyConfig, settings_of
from biascxr.apply.stages import apply_run

__all__ = ["ApplyConfig", "apply_run", "settings_of"]
