"""What tests of pictures share."""

import pytest
from matplotlib.figure import Figure


@pytest.fixture
def figures(monkeypatch):
    """Those that are saved."""
    found, save = [], Figure.savefig

    def keep(figure, *arguments, **settings):
        found.append(figure)
        return save(figure, *arguments, **settings)

    monkeypatch.setattr(Figure, "savefig", keep)
    return found
