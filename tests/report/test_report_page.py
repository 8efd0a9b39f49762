"""The page itself: nothing from outside, all text escaped, and whole in a real browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from lightning_zoo.report.curves import make_curve
from lightning_zoo.report.data import DataSummary
from lightning_zoo.report.findings import Bar, Cell, ClassCurve, Confusion, Findings, Mistake, Panel
from lightning_zoo.report.history import History
from lightning_zoo.report.html import VOID_TAGS, escape, shown, tag
from lightning_zoo.report.page import Content, Picture, render
from lightning_zoo.report.pictures import data_uri
from lightning_zoo.report.svg import Line, line_chart, number, thinned, ticks
from lightning_zoo.runs import Run, RunState

EVIL = '<script>alert("1")</script> & \x00co'
METRICS = """step,epoch,train/loss,lr,train/loss_epoch,val/loss,val/box_map,val/box_map50
9,0.0,2.5,0.01,,,,
19,0.0,,,2.4,2.2,10.0,20.0
29,1.0,1.5,0.005,,,,
39,1.0,,,1.6,nan,31.5,50.0
59,2.0,,,1.1,1.2,30.0,49.0
"""
LONG = "a_very_long_class_name_that_nobody_would_choose_but_somebody_will"


def names_of(classes: int) -> list[str]:
    return [EVIL, LONG, *(f"class {i}" for i in range(classes))][:classes]


def content(folder: Path, classes: int = 5, pictures: int = 2, side: int = 40) -> Content:
    rng = np.random.default_rng(0)
    (folder / "recipe.yaml").write_text(f"# {EVIL[:8]}\nmodel: x\n")
    (folder / "environment.json").write_text(json.dumps({"machine": EVIL}))
    (folder / "metrics.csv").write_text(METRICS)
    names = names_of(classes)
    curves = []
    for name in names:
        scores = rng.random(400)
        right = rng.random(400) < scores
        curve = make_curve(scores, right, int(right.sum()) + 40)
        curves.append(ClassCurve(name, curve, 100 * curve.average_precision, curve.best()))
    rows: list[dict[str, Cell]] = [
        {"class": n, "objects": 1234 + i, "AP": 50.25, "note": n} for i, n in enumerate(names)
    ]
    size = classes + 1
    counts = rng.integers(0, 60, (size, size)) + np.diag(np.full(size, 200))
    panel = Panel("found", rng.integers(0, 256, (side, side, 3)).astype(np.uint8), ((EVIL, None),))
    mistake = Mistake(1, f"1 {EVIL} missed", lambda _: [], (Bar(EVIL, 0.7, True),))
    drawn = [(panel, data_uri(panel.image))] * 2
    return Content(
        run=Run(folder),
        state=RunState(
            recipe=f"own {EVIL}",
            command=["/x/lightning_zoo/__main__.py", "fit", "--data.root", EVIL],
            status="finished",
            started="2026-03-01T10:00:00+00:00",
            finished="2026-03-01T11:02:30+00:00",
        ),
        model="maskrcnn_resnet50_fpn",
        root="/somewhere/with a " + "long/" * 30,
        classes=classes,
        unit="image",
        monitor=("val/box_map", "max"),
        headline=("box_map", "box_map50"),
        epoch=2,
        epochs=3,
        findings=Findings(
            metrics={"box_map": 31.5, "box_map50": 50.0, "box_map_small": float("nan")},
            rows=rows,
            curves=curves,
            confusion=Confusion([*names, "nothing"], counts, "objects", background=True),
            mistakes=[mistake],
            worst_by="objects missed",
            thresholds=dict.fromkeys(names, 0.5),
            samples=1,
        ),
        pictures=[Picture(mistake, f"val/{EVIL}.jpg", drawn)] * pictures,
        data=DataSummary(
            splits=[{"split": "train", "images": 7}],
            classes=[{"class": name, "train": 3, "val": 1} for name in names],
            counted="objects",
            decisions=[f"{EVIL} decided"],
            problems=[{"problem": EVIL, "severity": "error", "times": 2, "examples": EVIL,
                       "what to do": EVIL}],
        ),
        skipped=[{"file": f"{EVIL}{i}", "error": EVIL, "split": "train"} for i in range(25)],
        history=History(folder / "metrics.csv"),
        next_verb="validate",
    )  # fmt: skip


class Elements(HTMLParser):
    """Counts elements and sees that each is closed where it should be."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        assert len({key for key, _ in attributes}) == len(attributes)
        self.seen.append((name, dict(attributes)))
        if name not in VOID_TAGS:
            self.open.append(name)

    def handle_endtag(self, name: str) -> None:
        assert self.open.pop() == name

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for one, attributes in self.seen if one == name]


@pytest.mark.parametrize("classes", [1, 2, 91])
def test_a_page_needs_nothing_else_and_says_all(classes: int, tmp_path: Path) -> None:
    page = render(content(tmp_path, classes))
    found = Elements(page)
    assert len(page) < 3_000_000
    assert found.all("script") == []
    assert EVIL not in page
    assert "\x00" not in page
    assert "".join(found.texts).count('<script>alert("1")</script> & \N{REPLACEMENT CHARACTER}co')
    for attribute in ("src", "href", "data", "action", "xlink:href"):
        for name, attributes in found.seen:
            value = attributes.get(attribute)
            assert value is None or value.startswith(("#", "data:image/jpeg;base64,")), (
                name,
                value,
            )
    assert not re.search(r"https?://|url\(|@import|\bon\w+=", page)
    assert len(found.all("h1")) == 1
    ids = [a["id"] for _, a in found.seen if "id" in a]
    assert len(set(ids)) == len(ids)
    links = [str(a["href"]) for a in found.all("a")]
    assert links == [f"#{name}" for name in ids]
    assert ids == ["curves", "classes", "precision", "confusions", "worst", "data", "run"]
    assert all(image["alt"] for image in found.all("img"))
    assert all(chart["aria-label"] for chart in found.all("svg"))
    assert all(head["scope"] in ("col", "row") for head in found.all("th"))
    assert len(found.all("caption")) == len(found.all("table"))
    # charts and matrix are cut to what can be read, the tables have every class
    assert len(found.all("svg")) == 3 + min(classes, 20)
    matrix = page[page.index('id="confusions"') : page.index('id="worst"')]
    assert matrix.count("<td") == (min(classes, 20) + 1) ** 2
    body = page[page.index('id="classes"') : page.index('id="precision"')]
    assert body.count("<tr>") == classes + 1
    assert ("other classes" in page) == (classes == 91)


def test_what_a_page_says(tmp_path: Path) -> None:
    page = render(content(tmp_path))
    text = re.sub("<[^>]+>", " ", page[page.index("<body") :])
    for expected in (
        "maskrcnn_resnet50_fpn, 5 classes, the weights of epoch 2 of 3 measured on 1 validation",
        "1 h 2 min",
        "2026-03-01 10:00",
        "best box AP 31.5 %",
        "and 5 more, see",
        "python -m lightning_zoo fit --data.root",
        f"python -m lightning_zoo validate {tmp_path}",
        f"fit --recipe {tmp_path}/recipe.yaml",
        "Loss by epoch",
    ):
        assert expected in text or expected in page, expected
    assert re.findall(r'<data value="([^"]+)" data-metric="([^"]+)"', page) == [
        ("31.500000", "val/box_map"),
        ("50.000000", "val/box_map50"),
    ]


def test_pictures_leave_room(tmp_path: Path) -> None:
    """Two dozen pictures of noise, the worst that there is to press, stay below 3 MB."""
    page = render(content(tmp_path, 91, pictures=12, side=400))
    assert 500_000 < len(page) < 3_000_000


def test_history_counts_epochs(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(METRICS)
    history = History(tmp_path / "metrics.csv")
    line = history.line("train/loss_epoch", "training")
    assert line is not None
    assert (line.xs, line.ys) == ([1.0, 2.0, 3.0], [2.4, 1.6, 1.1])
    by_step = history.line("train/loss", "steps")
    assert by_step is not None
    assert by_step.xs == [0.5, 1.5]
    losses = history.line("val/loss", "validation")
    assert losses is not None
    assert losses.xs == [1.0, 3.0]  # NaN is no point
    assert history.best("val/box_map", "max") == (2.0, 31.5)
    assert history.best("val/loss", "min") == (3.0, 1.2)
    assert history.line("val/nothing", "nothing") is None
    assert History(tmp_path / "absent.csv").rows == []


def test_no_text_becomes_an_element() -> None:
    assert tag("p", "<b>", tag("i", "&")) == "<p>&lt;b&gt;<i>&amp;</i></p>"
    assert tag("a", title='"x"', hidden=True, class_=None) == '<a title="&quot;x&quot;" hidden></a>'
    assert escape("\ud800") == "\N{REPLACEMENT CHARACTER}"
    assert shown(1234567) == "1\u202f234\u202f567"
    assert shown(float("nan")) == "\N{EN DASH}"
    assert shown(12.34) == "12.3"


@pytest.mark.parametrize(("low", "high"), [(0, 1), (3.2, 97.0), (2e-7, 9e-4), (-5.0, 1e6)])
def test_ticks_are_round_and_go_around(low: float, high: float) -> None:
    found = ticks(low, high, count=6)
    assert found[0] <= low
    assert found[-1] >= high
    assert 4 <= len(found) <= 8
    assert np.ptp(np.diff(found)) < 1e-9 * high
    step = f"{found[1] - found[0]:e}"
    assert step[0] in "125"
    assert step.startswith(f"{step[0]}.000000")


def test_ticks_and_numbers_worked_by_hand() -> None:
    assert ticks(3.2, 97.0, count=6) == [0, 20, 40, 60, 80, 100]
    assert ticks(1, 7, count=5, whole=True) == [2, 4, 6]
    assert [number(v) for v in (0, 0.25, 4.5e-4, 120_000, -3)] == [
        "0", "0.25", "4.5e-4", "1.2e5", "-3",
    ]  # fmt: skip


@pytest.mark.parametrize("values", [[1.0], [0.0, 0.0], [5.0, 5.0, 5.0], [1e-9, 2e-9], [-3.0, 8e7]])
def test_charts_of_any_values(values: list[float]) -> None:
    line = Line("loss", [float(i + 1) for i in range(len(values))], values)
    chart = line_chart([line], label="x", x_label="epoch", y_label="loss", whole_x=True)
    places = [float(v) for v in re.findall(r'c[xy]="([^"]+)"', chart)]
    assert len(places) == 2 * len(values)
    assert all(0 <= place <= 400 for place in places)


def test_long_lines_are_thinned() -> None:
    points = [(float(i), float(i)) for i in range(100_001)]
    kept = thinned(points, 300)
    assert len(kept) <= 301
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert thinned(points[:7], 300) == points[:7]
    assert thinned([], 300) == []


# ---------------------------------------------------------------------------------------------
# In a browser

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PROBE = """<!doctype html><title>waiting</title><body style="margin:0">
{frames}
<script>
onload = () => {{
  document.title = JSON.stringify([...document.querySelectorAll("iframe")].map(frame => {{
    const page = frame.contentDocument, root = page.documentElement;
    const wide = [...page.querySelectorAll("h1,h2,p,svg,img,figure,dd,nav")].filter(one =>
      !one.closest(".scroll") && one.getBoundingClientRect().right > root.clientWidth + 1);
    return {{
      width: root.clientWidth, needed: root.scrollWidth, clipped: wide.map(one => one.outerHTML),
      headings: [...page.querySelectorAll("h1,h2")].map(one => one.textContent),
      broken: [...page.images].filter(one => !one.complete || !one.naturalWidth).length,
      images: page.images.length, height: root.scrollHeight,
      paper: getComputedStyle(page.body).backgroundColor,
      ink: getComputedStyle(page.body).color,
    }};
  }}));
}};
</script>"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_in_a_browser(dark: bool, tmp_path: Path) -> None:
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"no browser here: none of {', '.join(BROWSERS)} on PATH")
    page = render(content(tmp_path, 91, pictures=3)).replace(' loading="lazy"', "")
    frames = "".join(
        f'<iframe srcdoc="{escape(page)}" style="border:0;width:{width}px;height:800px"></iframe>'
        for width in (390, 1400)
    )
    probe = tmp_path / "probe.html"
    probe.write_text(PROBE.format(frames=frames), encoding="utf-8")
    command = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
               f"--user-data-dir={tmp_path / 'browser'}", "--virtual-time-budget=8000",
               f"--blink-settings=preferredColorScheme={0 if dark else 1}",
               "--window-size=1500,900", "--dump-dom", probe.as_uri()]  # fmt: skip
    answer = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    title = re.search("<title>(.*?)</title>", answer.stdout, re.S)
    assert title is not None, answer.stderr
    seen = json.loads(title[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    assert [one["width"] for one in seen] == [390, 1400]
    for one in seen:
        assert one["needed"] == one["width"], "the page is wider than the screen"
        assert one["clipped"] == []
        assert one["headings"][0].startswith("own <script>alert")
        assert one["headings"][1:] == [
            "Curves", "Classes", "Precision and recall", "Confusions", "Worst images", "Data",
            "The run",
        ]  # fmt: skip
        assert (one["broken"], one["images"]) == (0, 6)
        brightness = [sum(map(int, re.findall(r"\d+", one[k])[:3])) for k in ("paper", "ink")]
        assert (brightness[0] < 150 and brightness[1] > 600) == dark
        assert (brightness[0] > 600 and brightness[1] < 150) != dark
