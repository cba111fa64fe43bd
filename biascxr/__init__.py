"""biascxr: how unfair is a chest X-ray classifier, why, which remedy helps, by how much, and how sure are we?

`python main.py --csv_path meta.csv` runs everything; each stage is also a package (`biascxr.cohort`, `biascxr.records`,
`biascxr.embeddings`, `biascxr.mitigation`, `biascxr.leakage`, `biascxr.audit`, `biascxr.report`). Importing this
package loads no TensorFlow.
"""

__version__ = "0.1.0"

__all__ = ["__version__"]
