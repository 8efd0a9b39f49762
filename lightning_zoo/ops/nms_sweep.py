"""Non-maximum suppression that looks only at pairs of boxes with close centres.

Two boxes with an IoU above t overlap along each axis by at least t times the longer side, so that
their centres are closer than `_reach` times the side of either. Boxes are sorted into bands by the
y of their centres and within a band by x: the candidates of a box are then a few ranges, found by
bisection. What the candidates' IoU decides is exact; the bounds are in float64 and a little wide.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Ints = NDArray[np.intp]

SLACK = 1e-5  # far above the rounding of a float32 IoU (1e-6), far below what costs time
SLAB = 8192  # candidates at a time: twelve float32 arrays of it stay in the L2 cache
FIRST = 256  # boxes settled first; what they suppress need not be compared any more
GROWTH = 4
ROUNDS = 16


def suits(sides: Floats, threshold: np.floating) -> bool:
    """Return whether the bounds hold: proper float32 boxes and a threshold between 0.001 and 1."""
    if sides.dtype != np.float32 or not 1e-3 <= threshold < 1:
        return False
    area = sides[4]
    return bool(
        (np.abs(sides[:4]) < 1e15).all()  # false for nan, too
        and (sides[2] >= sides[0]).all()
        and (sides[3] >= sides[1]).all()
        and ((area >= 1e-20) | (area == 0)).all()  # no IoU of denormal numbers
    )


def keep(sides: Floats, kinds: NDArray[np.int64] | None, threshold: np.floating) -> Ints:
    """Return the positions of the boxes that stay, in ascending order.

    Args:
        sides: x1, y1, x2, y2 and area (5, N), the highest score first; see `suits`.
        kinds: (N,), only boxes of the same compete; or None.
        threshold: A box goes if its IoU with one that stays is above this.
    """
    if kinds is None:
        groups = np.zeros(sides.shape[1])
    else:
        groups = np.unique(kinds, return_inverse=True)[1].astype(np.float64)
    left = np.arange(sides.shape[1])
    kept = []
    size = FIRST
    while len(left):
        head, rest = sides[:, :size], sides[:, size:]
        alive = _settle(*_pairs(head, groups[:size], None, None, threshold), head.shape[1])
        kept.append(left[:size][alive])
        left = left[size:]
        if len(left):
            best, theirs = head[:, alive], groups[:size][alive]
            groups = groups[size:]
            stay = np.ones(len(left), bool)
            stay[_pairs(best, theirs, rest, groups, threshold)[1]] = False
            left, sides, groups = left[stay], rest[:, stay], groups[stay]
        size *= GROWTH
    return np.concatenate(kept)


def _reach(threshold: float) -> float:
    """Return how far apart centres can be, in sides of either box.

    With sides v <= w that overlap by at least t * w, centres differ by at most (v + w) / 2 - t * w.
    Given one side, the worst partner is as long (t >= 1/2) or 1 / t times as long.
    """
    t = threshold * (1 - SLACK)
    return (1 - t if t >= 0.5 else 0.5 / t - 0.5) * (1 + SLACK)


def _pairs(
    a: Floats,
    a_groups: NDArray[np.float64],
    b: Floats | None,
    b_groups: NDArray[np.float64] | None,
    threshold: np.floating,
) -> tuple[Ints, Ints]:
    """Return positions in ``a`` and in ``b`` of the pairs with an IoU above the threshold.

    Without ``b``, of the pairs within ``a``, each once.
    """
    within = b is None
    a_x, a_y = _centres(a)
    if b is None or b_groups is None:
        b, b_groups, b_x, b_y = a, a_groups, a_x, a_y
    else:
        b_x, b_y = _centres(b)
    reach = _reach(float(threshold))
    reach_x, reach_y = (a[2] - a[0]) * np.float64(reach), (a[3] - a[1]) * np.float64(reach)
    left, top = b_x.min(), b_y.min()
    span_x, span_y = b_x.max() - left, b_y.max() - top

    # bands as high as boxes reach, but no more than sqrt(N), and one at least
    height = max(float(reach_y.mean()), span_y / len(b_x) ** 0.5, np.finfo(np.float32).tiny)
    bands = np.floor(span_y / height) + 1
    pitch = 2 * span_x + 1  # of the keys, so that bands do not run into each other
    key = (b_groups * bands + np.floor((b_y - top) / height)) * pitch + (b_x - left)
    order = np.argsort(key)
    key = key[order]

    # one range for each box and each band it reaches; within a set only from its own place on
    who = order if within else np.arange(a.shape[1])
    y, up = a_y[who] - top, reach_y[who]
    first = y / height if within else np.maximum((y - up) / height, 0)
    first = np.floor(first)
    last = np.minimum(np.floor((y + up) / height), bands - 1)
    place, nth = _ragged(np.maximum(last - first + 1, 0).astype(np.intp))
    who = who[place]
    start = (a_groups[who] * bands + first[place] + nth) * pitch
    x, across = a_x[who] - left, reach_x[who]
    begin = np.searchsorted(key, start + np.maximum(x - across, 0), "left")
    end = np.searchsorted(key, start + np.minimum(x + across, span_x), "right")
    if within:
        begin = np.where(nth == 0, place + 1, begin)
    count = np.maximum(end - begin, 0)

    b = b[:, order]
    found: list[tuple[Ints, Ints]] = [(np.empty(0, np.intp), np.empty(0, np.intp))]
    total = count.cumsum()
    u = 0
    while u < len(count):
        done = total[u - 1] if u else 0
        v = max(u + 1, int(np.searchsorted(total, done + SLAB, "right")))
        nth_range, nth = _ragged(count[u:v])
        i = who[u:v][nth_range]
        j = begin[u:v][nth_range] + nth
        hit = np.flatnonzero(_iou(a.take(i, axis=1), b.take(j, axis=1)) > threshold)
        found.append((i[hit], order[j[hit]]))
        u = v
    return np.concatenate([f[0] for f in found]), np.concatenate([f[1] for f in found])


def _centres(sides: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    wide = sides[:4].astype(np.float64)
    return (wide[0] + wide[2]) / 2, (wide[1] + wide[3]) / 2


def _ragged(counts: Ints) -> tuple[Ints, Ints]:
    """Return for rows of the given lengths the row of each element, and its place in the row."""
    row = np.repeat(np.arange(len(counts)), counts)
    return row, np.arange(len(row)) - np.repeat(counts.cumsum() - counts, counts)


def _iou(a: Floats, b: Floats) -> Floats:
    """Return the IoU of pairs (5, N), in the order of operations of `nms_blocks`."""
    sides = np.minimum(a[2:4], b[2:4])
    sides -= np.maximum(a[:2], b[:2])
    np.maximum(sides, 0, out=sides)
    inter = sides[0]
    inter *= sides[1]
    union = a[4] + b[4]
    union -= inter
    inter /= union
    return inter


def _settle(i: Ints, j: Ints, count: int) -> Ints:
    """Return which of ``count`` boxes stay, given the pairs of which only the earlier may stay."""
    earlier, later = np.minimum(i, j), np.maximum(i, j)
    alive = np.ones(count, bool)
    for _ in range(ROUNDS):
        if not len(earlier):
            break
        sure = np.ones(count, bool)  # nothing that may stay suppresses it
        sure[later] = False
        settled = sure[earlier]
        alive[later[settled]] = False
        open_ = ~settled & alive[earlier] & alive[later]
        earlier, later = earlier[open_], later[open_]
    if len(earlier):  # a long chain, where a round would settle one box
        by_score = np.argsort(earlier, kind="stable")
        pairs = zip(earlier[by_score].tolist(), later[by_score].tolist(), strict=True)
        state = alive.tolist()
        for a, b in pairs:
            if state[a]:
                state[b] = False
        alive = np.array(state)
    return np.flatnonzero(alive)
