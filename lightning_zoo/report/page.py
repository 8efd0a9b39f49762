"""The page: one file of HTML with everything in it, light or dark as the reader's machine is."""

from __future__ import annotations

import datetime
import json
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lightning_zoo.batch import counted
from lightning_zoo.report.data import DataSummary
from lightning_zoo.report.findings import Cell, ClassCurve, Confusion, Findings, Mistake, Panel
from lightning_zoo.report.history import History
from lightning_zoo.report.html import ABSENT, Markup, join, shown, table, tag
from lightning_zoo.report.svg import Line, legend, line_chart
from lightning_zoo.runs import Run, RunState

STYLE = Path(__file__).with_name("page.css")
MOST_CLASSES = 20  # in charts and in the confusion matrix; tables have all
MOST_FILES = 20
MOST_CONFUSIONS = 8
# What people call the figures.
NAMES = {
    "box_map": "box AP", "box_map50": "box AP50", "box_map75": "box AP75", "mask_map": "mask AP",
    "mask_map50": "mask AP50", "kp_map": "keypoint AP", "kp_map50": "keypoint AP50",
    "acc@1": "accuracy", "acc@5": "top-5 accuracy", "clip_acc@1": "clip accuracy",
    "map": "mean AP", "miou": "mean IoU", "pixel_acc": "pixel accuracy",
}  # fmt: skip


@dataclass(frozen=True)
class Picture:
    """One of the worst images, drawn.

    Attributes:
        mistake: What is wrong.
        file: Its file.
        panels: Pictures, each with the text that a page holds it by.
    """

    mistake: Mistake
    file: str
    panels: Sequence[tuple[Panel, str]]


@dataclass(frozen=True)
class Content:
    """All that the page says.

    Attributes:
        run: The run's folder.
        state: What ``run.json`` says.
        model: Name of the network.
        root: Folder of the data.
        classes: Number of classes.
        unit: What a sample is called, ``image`` or ``video``.
        monitor: The figure that says which epoch was best, and whether ``max`` or ``min`` is good.
        headline: Figures of the task that stand at the top, besides the monitored one.
        epoch: The checkpoint's, counted from 1.
        epochs: Of the whole run, where the recipe says it.
        findings: What the pass found.
        pictures: The worst images.
        data: The data's summary.
        skipped: The ledger's entries.
        history: Figures by step.
        next_verb: ``validate``, or ``quantize`` for INT8.
    """

    run: Run
    state: RunState
    model: str
    root: str
    classes: int
    unit: str
    monitor: tuple[str, str]
    headline: tuple[str, ...]
    epoch: int
    epochs: int | None
    findings: Findings
    pictures: Sequence[Picture]
    data: DataSummary
    skipped: Sequence[dict[str, Any]]
    history: History
    next_verb: str


def render(content: Content) -> str:
    """Return the page."""
    sections = [
        ("curves", "Curves", _curves(content)),
        ("classes", "Classes", _classes(content)),
        ("precision", "Precision and recall", _precision(content)),
        ("confusions", "Confusions", _confusions(content.findings.confusion)),
        ("worst", f"Worst {content.unit}s", _worst(content)),
        ("data", "Data", _data(content)),
        ("run", "The run", _run(content)),
    ]
    present = [(name, title, body) for name, title, body in sections if body is not None]
    links = [tag("li", tag("a", title, href=f"#{name}")) for name, title, _ in present]
    title = f"{content.state.recipe} · report"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", Markup(STYLE.read_text(encoding="utf-8"))),
    )
    body = tag(
        "body",
        tag("header", *_head(content), tag("nav", tag("ul", *links), aria_label="Sections")),
        tag("main", *[
            tag("section", tag("h2", title, id=name), part, aria_labelledby=name)
            for name, title, part in present
        ]),
        tag("footer", _written()),
    )  # fmt: skip
    return "<!doctype html>\n" + tag("html", head, body, lang="en") + "\n"


def _written() -> str:
    now = datetime.datetime.now().astimezone()
    return f"Written by lightning_zoo report on {now:%Y-%m-%d at %H:%M}."


def _name(metric: str) -> str:
    return NAMES.get(metric, metric)


# ---------------------------------------------------------------------------------------------
# The head


def _head(content: Content) -> list[Markup]:
    metrics = content.findings.metrics
    monitored = content.monitor[0].partition("/")[2]
    names = [n for n in dict.fromkeys([monitored, *content.headline]) if n in metrics]
    tiles = [
        tag("div", tag("dt", _name(name)), tag("dd", _figure(f"val/{name}", metrics[name])))
        for name in names
    ]
    of = f" of {content.epochs}" if content.epochs else ""
    samples = counted(content.findings.samples, f"validation {content.unit}")
    lead = f"{content.model}, {counted(content.classes, 'class', 'es')}, the weights of epoch "
    lead += f"{content.epoch}{of} measured on {samples}."
    took = _duration(content.state)
    facts = {
        "Model": content.model,
        "Data": content.root,
        "Begun": _time(content.state.started),
        "Time taken": took,
        "Ended": "" if content.state.status == "finished" else content.state.status,
        "Run": str(content.run.path),
    }
    listed = [join([tag("dt", name), tag("dd", value)]) for name, value in facts.items() if value]
    every: list[dict[str, Cell]] = [
        {"figure": f"val/{name}", "value": ABSENT if math.isnan(value) else f"{value:.3f}"}
        for name, value in sorted(metrics.items())
    ]
    return [
        tag("h1", content.state.recipe),
        tag("p", lead, class_="lead"),
        tag("dl", *tiles, class_="figures"),
        tag("dl", *listed, class_="facts"),
        tag("details", tag("summary", "All figures, as validate prints them"),
            tag("div", table(every, "All figures"), class_="fit")),
    ]  # fmt: skip


def _figure(metric: str, value: float) -> Markup:
    if math.isnan(value):
        return tag("data", ABSENT, value="nan", data_metric=metric)
    number = tag("data", f"{value:.1f}", value=f"{value:.6f}", data_metric=metric)
    return join([number, tag("small", " %")])


def _time(text: str) -> str:
    try:
        return f"{datetime.datetime.fromisoformat(text):%Y-%m-%d %H:%M}"
    except ValueError:
        return text


def _duration(state: RunState) -> str:
    try:
        ends = [datetime.datetime.fromisoformat(t) for t in (state.started, state.finished or "")]
    except ValueError:
        return ""
    seconds = round((ends[1] - ends[0]).total_seconds())
    hours, minutes = seconds // 3600, seconds % 3600 // 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds % 60} s" if minutes else f"{seconds} s"


# ---------------------------------------------------------------------------------------------
# Charts


def _curves(content: Content) -> Markup | None:
    history, unit = content.history, content.history.unit
    monitored = content.monitor[0]
    split, _, metric = monitored.partition("/")
    wanted = [monitored, *(f"val/{name}" for name in content.headline),
              f"{split}/ema_{metric}", "val/acc@5"]  # fmt: skip
    charts: list[tuple[str, str, list[Line | None]]] = [
        ("Loss", "loss", [
            history.line("train/loss_epoch", "training"),
            history.line("val/loss", "validation"),
            history.line("train/loss", "training, by step", faint=True),
        ]),
        ("Validation", "per cent", [
            history.line(name, _name(name.partition("/")[2]))
            for name in list(dict.fromkeys(wanted))[:4]
        ]),
        ("Learning rate", "rate", [history.line("lr", "learning rate")]),
    ]  # fmt: skip
    best = history.best(*content.monitor) if history.by_epoch else None
    figures = []
    for title, y_label, found in charts:
        lines = [line for line in found if line is not None]
        if not lines:
            continue
        mark = None
        if title == "Validation" and best is not None:
            mark = (best[0], f"best {_name(metric)} {shown(best[1])} %")
        label = f"{title} by {unit}: " + "; ".join(
            f"{line.name} from {line.points[0][1]:.4g} to {line.points[-1][1]:.4g}"
            for line in lines
        )
        chart = line_chart(lines, label=label, x_label=unit, y_label=y_label, mark=mark,
                           whole_x=history.by_epoch)  # fmt: skip
        figures.append(tag("figure", tag("figcaption", title), chart, legend(lines)))
    if not figures:
        return None
    return tag("div", *figures, class_="charts")


def _precision(content: Content) -> Markup | None:
    curves = content.findings.curves
    if not curves:
        return None
    picked = sorted(curves, key=lambda one: -one.curve.truths)[:MOST_CLASSES]
    rest = len(curves) - len(picked)
    which = f"The {len(picked)} commonest of {len(curves)} classes. " if rest else ""
    each = "found at an IoU of 0.5" if content.findings.confusion is not None else "found"
    if content.findings.confusion is not None and not content.findings.confusion.background:
        each = "told from all others"
    text = (
        f"{which}Each class {each}, as the score from which it counts falls. The dot is the best "
        "F1, which the score below the name gives."
    )
    panels = [_precision_panel(one) for one in picked]
    return join([
        tag("p", text, class_="lead"),
        tag("div", *panels, class_="charts few" if len(panels) <= 3 else "charts small"),
    ])  # fmt: skip


def _precision_panel(one: ClassCurve) -> Markup:
    recall, precision = one.curve.recall.tolist(), one.curve.precision.tolist()
    # the curve begins where nothing is found yet
    line = Line(one.name, [0.0, *recall] if recall else [], [*precision[:1], *precision])
    best = one.best
    known = not math.isnan(best.precision + best.recall)
    label = f"Precision against recall of {one.name}, AP {shown(one.ap)}"
    if known:
        label += (
            f"; at the score {best.threshold:.2f} precision {best.precision:.2f} and recall "
            f"{best.recall:.2f}"
        )
    chart = line_chart(
        [line], label=label, x_label="recall", y_label="precision", x_range=(0, 1),
        y_range=(0, 1), dot=(best.recall, best.precision) if known else None, size=(260, 210),
    )  # fmt: skip
    caption = f"AP {shown(one.ap)}, score {best.threshold:.2f}" if recall else "never found"
    return tag("figure", tag("figcaption", one.name, tag("span", caption)), chart)


# ---------------------------------------------------------------------------------------------
# Tables


def _classes(content: Content) -> Markup:
    findings = content.findings
    text = "In per cent."
    if findings.thresholds:
        text = (
            "In per cent; precision, recall and F1 at the threshold, the score of the best F1. "
            "The thresholds stand in the run's checkpoints, and predict takes them from there."
        )
    return join([
        tag("p", text, class_="lead"),
        table(findings.rows, "Figures of each class", texts=("most often taken for",)),
    ])  # fmt: skip


def _confusions(confusion: Confusion | None) -> Markup | None:
    if confusion is None or not confusion.counts.any():
        return None
    names, counts, lead = confusion.names, confusion.counts, ""
    last = len(names) - confusion.background
    worst = [(int(counts[i, j]), names[i], names[j])
             for i in range(last) for j in range(last) if i != j and counts[i, j]]  # fmt: skip
    worst.sort(key=lambda entry: -entry[0])
    if last > MOST_CLASSES:
        order = np.argsort(-(counts.sum(axis=0) + counts.sum(axis=1))[:last], kind="stable")
        picked = np.sort(order[: MOST_CLASSES - 1])
        names, counts = _fold(confusion, picked.tolist())
        lead = f"The {len(picked)} commonest of {last} classes, the others together. "
    lead += f"Rows are true, columns found; numbers are {confusion.unit}"
    lead += ", colours the share of the row."
    if confusion.background:
        lead += (
            f" The last column counts {confusion.unit} that were missed, the last row those that "
            "were too many, from each class's threshold on."
        )
    head = [tag("th", tag("span", name), scope="col") for name in names]
    rows = []
    for name, row in zip(names, counts, strict=True):
        total = int(row.sum())
        cells = [_confused(int(value), total) for value in row]
        rows.append(tag("tr", tag("th", name, scope="row", class_="text"), *cells))
    if confusion.background:  # what is neither true nor found cannot be counted
        cut = rows[-1].rindex("<td")
        rows[-1] = Markup(rows[-1][:cut] + tag("td", "", class_="zero", style="--p:0") + "</tr>")
    grid = tag(
        "table", tag("caption", "Confusion matrix"),
        tag("thead", tag("tr", tag("th", "true \\ found", scope="col", class_="text"), *head)),
        tag("tbody", *rows),
    )  # fmt: skip
    listed = [
        tag("li", f"{true} taken for {found}: {shown(count)}")
        for count, true, found in worst[:MOST_CONFUSIONS]
    ]
    return join([
        tag("p", lead, class_="lead"),
        tag("div", grid, class_="scroll confusion fit", tabindex=0, role="region",
            aria_label="Confusion matrix"),
        tag("h3", f"Most frequent, in {confusion.unit}") if listed else None,
        tag("ul", *listed, class_="plain") if listed else None,
    ])  # fmt: skip


def _fold(confusion: Confusion, picked: list[int]) -> tuple[list[str], Any]:
    """Return names and counts with the classes that were not picked in one."""
    size = len(confusion.names)
    last = size - confusion.background
    group = np.full(size, len(picked))
    for place, label in enumerate(picked):
        group[label] = place
    if confusion.background:
        group[last] = len(picked) + 1
    folded = np.zeros((len(picked) + 1 + confusion.background,) * 2, np.int64)
    np.add.at(folded, (group[:, None], group[None]), confusion.counts)
    names = [confusion.names[label] for label in picked]
    return [*names, "other classes", *confusion.names[last:]], folded


def _confused(count: int, total: int) -> Markup:
    share = count / total if total else 0.0
    kind = "zero" if not count else "strong" if share > 0.55 else None
    return tag("td", _short(count), class_=kind, style=f"--p:{100 * share:.0f}",
               title=f"{shown(count)} of {shown(total)}" if count else None)  # fmt: skip


def _short(count: int) -> str:
    """Return a count in few letters: ``12 345 678`` is ``12.3M``."""
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**4, "k")):
        if count >= size:
            value = count / (1000 if letter == "k" else size)
            return f"{value:.3g}{letter}"
    return str(count)


# ---------------------------------------------------------------------------------------------
# Pictures


def _worst(content: Content) -> Markup | None:
    findings = content.findings
    lead = f"By {findings.worst_by}. "
    if not content.pictures:
        return tag("p", "None: everything was found, and nothing too many.", class_="lead")
    figures = [_mistake(picture, content.unit) for picture in content.pictures]
    return join([tag("p", lead, class_="lead"), tag("div", *figures, class_="worst")])


def _mistake(picture: Picture, unit: str) -> Markup:
    panels = []
    for panel, source in picture.panels:
        height, width = panel.image.shape[:2]
        alt = f"{picture.file}, {panel.title}: {picture.mistake.text}"
        image = tag("img", src=source, alt=alt, width=width, height=height, loading="lazy")
        many = len(picture.panels) > 1
        panels.append(tag("div", tag("span", panel.title) if many else None, image))
    parts: list[Markup | None] = []
    bars = _bars(picture.mistake) if picture.mistake.bars else None
    if unit == "video":  # whose frames want the whole width
        parts += [tag("div", *panels, class_="wide"), bars]
    else:
        parts.append(tag("div", *panels, bars, class_="pair"))
    if swatches := picture.panels[0][0].legend:
        parts.append(tag("ul", *[
            tag("li", tag("i", class_=None if colour else "void", aria_hidden="true",
                          style=f"background:{colour}" if colour else None), name)
            for name, colour in swatches
        ], class_="swatches"))  # fmt: skip
    caption = tag("figcaption", picture.mistake.text, tag("code", picture.file))
    return tag("figure", *parts, caption)


def _bars(mistake: Mistake) -> Markup:
    rows = []
    for bar in mistake.bars:
        name = tag("span", tag("b", bar.name, " (true)") if bar.true else bar.name)
        share = tag("span", f"{100 * bar.share:.0f} %")
        track = tag("span", tag("i", style=f"width:{100 * bar.share:.1f}%"), class_="track")
        rows.append(tag("li", tag("span", name, share, class_="name"), track,
                        class_="true" if bar.true else None))  # fmt: skip
    return tag("ul", *rows, class_="bars")


# ---------------------------------------------------------------------------------------------
# The data and the run


def _data(content: Content) -> Markup:
    data = content.data
    parts: list[Markup | None] = [
        tag("p", data.note, class_="note") if data.note else None,
        tag("div", table(data.splits, "Splits"), class_="fit"),
    ]
    if data.decisions:
        listed = tag("ul", *[tag("li", text) for text in data.decisions], class_="plain")
        parts.append(join([tag("h3", "How it was read"), listed]))
    if data.classes:
        caption = f"{data.counted.capitalize()} of each class"
        parts += [tag("h3", caption), table(data.classes, caption)]
    if data.problems:
        parts += [tag("h3", "Problems"), table(
            data.problems, "Problems of the annotations",
            texts=("severity", "examples", "what to do"),
        )]  # fmt: skip
    parts.append(tag("h3", "Files left out"))
    if content.skipped:
        rows: list[dict[str, Cell]] = [
            {"file": str(entry.get("file", "")), "split": str(entry.get("split", "")),
             "why": str(entry.get("error", ""))}
            for entry in content.skipped[:MOST_FILES]
        ]  # fmt: skip
        more = len(content.skipped) - len(rows)
        note = f"and {more} more, see {content.run.ledger}" if more else None
        parts.append(table(rows, "Files left out", texts=("split", "why"), note=note))
    else:
        parts.append(tag("p", "None."))
    return join(parts)


def _run(content: Content) -> Markup:
    run, folder = content.run, shlex.quote(str(content.run.path))
    zoo = "python -m lightning_zoo"
    samples = "videos/" if content.unit == "video" else "photos/"
    commands = [
        f"{zoo} {content.next_verb} {folder}",
        f"{zoo} predict {folder} {samples} --out out/",
        f"{zoo} export {folder} --format onnx --check" if content.next_verb == "validate" else None,
        f"{zoo} fit --recipe {shlex.quote(str(run.recipe_file))}",
    ]
    return join([
        tag("h3", "Started by"),
        tag("pre", tag("code", _command(content.state.command))),
        tag("h3", "Next"),
        tag("pre", tag("code", "\n".join(filter(None, commands)))),
        _folded("Recipe", run.recipe_file),
        _folded("Environment", run.path / "environment.json"),
    ])  # fmt: skip


def _folded(title: str, path: Path) -> Markup | None:
    if not path.is_file():
        return None
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        text = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    return tag("details", tag("summary", title), tag("pre", tag("code", text)))


def _command(words: Sequence[str]) -> str:
    """Return the command line that began a run, as it can be typed again."""
    if words and Path(words[0]).name in ("__main__.py", "lightning-zoo"):
        return shlex.join(["python", "-m", "lightning_zoo", *words[1:]])
    return shlex.join(words) or "unknown"
