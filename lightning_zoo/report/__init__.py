"""One self-contained page of a run: what it learned, where it errs, from which score it is right.

measure.py                             the run's best checkpoint, once through the validation split
objects.py labels.py pixels.py         what a detector, a classifier, a segmenter leaves behind
curves.py matching.py findings.py      precision and recall, objects found and true, what is shown
data.py history.py                     the data's summary, the figures by step
html.py svg.py pictures.py page.py     elements, charts, pictures, and the page made of them
"""

from __future__ import annotations

from lightning_zoo.report.make import Report, make_report, write_report

__all__ = ["Report", "make_report", "write_report"]
