"""What a reader needs of a figure: data in every panel, and text that can be read."""

import itertools

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg


def check(figure):
    """Every panel shows data; no text lies on another, or leaves the picture."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    assert figure.axes
    for axes in figure.axes:
        assert data_points(axes), f"{axes.get_title() or axes.get_xlabel()!r} is empty"
    renderer = canvas.get_renderer()
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in texts(figure)]
    for text, box in boxes:
        inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= figure.bbox.x1 + 1
        assert inside and box.y1 <= figure.bbox.y1 + 1, f"{text!r} leaves the picture"
    for (text, box), (other, its) in itertools.combinations(boxes, 2):
        width = min(box.x1, its.x1) - max(box.x0, its.x0)
        height = min(box.y1, its.y1) - max(box.y0, its.y0)
        # Boxes are as high as the font's tallest letters, so that they may touch by a pixel.
        assert width < 1 or height < 2, f"{text!r} lies on {other!r}"


def data_points(axes):
    """How many finite points of lines and bars are within the panel."""
    (left, right), (low, high) = sorted(axes.get_xlim()), sorted(axes.get_ylim())
    corners = [patch.get_window_extent() for patch in axes.patches]
    count = sum(box.width > 0 and box.height > 0 for box in corners)
    for line in axes.lines:
        x, y = np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)
        count += ((left <= x) & (x <= right) & (low <= y) & (y <= high)).sum()
    return count


def texts(figure):
    """All text that is drawn."""
    found = [text for legend in figure.legends for text in legend.get_texts()]
    for axes in figure.axes:
        found += [axes.title, *axes.texts]
        if axes.axison:
            found += [axes.xaxis.label, axes.yaxis.label, *tick_labels(axes)]
    return [text for text in found if text.get_visible() and text.get_text().strip()]


def tick_labels(axes):
    for axis in (axes.xaxis, axes.yaxis):
        low, high = sorted(axis.get_view_interval())
        for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
            if low <= tick.get_loc() <= high:  # Matplotlib keeps some outside
                yield tick.label1
