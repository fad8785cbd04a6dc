"""Figures that show text as it is: a file called `$x_{y$.png` is no mathematics.

Slow to import, so `figures.new_figure` alone does, when the first picture is drawn.
"""

from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedFormatter, FuncFormatter


class Canvas(Figure):
    """A figure none of whose texts is read as mathematics, and which can draw any name.

    Numbers at logarithmic axes stay powers of ten: these are matplotlib's own texts.
    """

    def draw(self, renderer):
        numbers = set()
        for axis in self.findobj(Axis):
            numbers |= {id(text) for text in _numbers(axis)}
        for text in self.findobj(Text):
            if id(text) not in numbers:
                text.set_parse_math(False)
                text.set_text(drawable(text.get_text()))
        super().draw(renderer)


def _numbers(axis: Axis) -> list[Text]:
    """Its labels, where they are no names; names are made drawable, as each drawing asks anew."""
    form = axis.get_major_formatter()
    if not isinstance(form, FixedFormatter | FuncFormatter):
        return axis.get_majorticklabels() + axis.get_minorticklabels()
    axis.set_major_formatter(lambda value, position: drawable(form(value, position)))
    return axis.get_minorticklabels()


def drawable(text: str) -> str:
    """Bytes of a file name that are no UTF-8 are half characters, which no font can be asked of."""
    return text.encode(errors="replace").decode()
