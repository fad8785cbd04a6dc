"""Where examples come from, as a config tells it: for training, and for each evaluation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from vit_jax.data.examples import Source
from vit_jax.data.sources import open_source
from vit_jax.data.sources.mixture import Mixture, open_mixture
from vit_jax.data.sources.remap import remap
from vit_jax.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Origin:
    """A source whose splits can be opened.

    Attributes:
      source: see `sources.open_source`; or a list of mappings, see `mixture.open_mixture`.
      data_dir, image_key, label_key: see `sources.open_source`; a mixture has them in its parts.
      labels: other labels than the source's own, see `remap.remap`.
      merge_classes: for a mixture of sources with different classes.
    """

    source: str | Sequence[Mapping[str, Any]]
    data_dir: str | None = None
    image_key: str | None = None
    label_key: str | None = None
    labels: Mapping[str, Any] | None = None
    merge_classes: bool = False

    @classmethod
    def of(cls, section: Mapping[str, Any]) -> "Origin":
        """From a `config.data`, which has other keys, too."""
        return cls(
            **{field.name: section[field.name] for field in fields(cls) if field.name in section}
        )

    def open(self, split: str, *, class_names: Sequence[str] | None = None) -> Source:
        """The examples of a split.

        Args:
          split: see `splits.GRAMMAR`; in a mixture, of the parts that name none.
          class_names: what `labels` refer to, unless they say so themselves.
        """
        keys = dict(data_dir=self.data_dir, image_key=self.image_key, label_key=self.label_key)
        if isinstance(self.source, str):
            if self.merge_classes:
                raise InputError(
                    f"data.merge_classes is True, but data.source is {self.source!r}; allowed with "
                    "a list of sources."
                )
            opened = open_source(self.source, split, **keys)
        else:
            for name, value in keys.items():
                if value is not None:
                    raise InputError(
                        f"data.{name} is {value!r}, but data.source is a list; allowed: in its "
                        "parts."
                    )
            opened = open_mixture(self.source, split=split, merge_classes=self.merge_classes)
        return opened if self.labels is None else self._remapped(opened, class_names)

    def _remapped(self, opened: Source, class_names: Sequence[str] | None) -> Source:
        """Part by part where there are parts, so that a mixture keeps its weights."""
        if isinstance(opened, Mixture):
            parts = [remap(part, self.labels, class_names=class_names) for part in opened.parts]
            return Mixture(parts, opened.weights)
        return remap(opened, self.labels, class_names=class_names)

    def changed(
        self,
        *,
        source: str | None = None,
        data_dir: str | None = None,
        image_key: str | None = None,
        label_key: str | None = None,
        labels: Mapping[str, Any] | None = None,
    ) -> "Origin":
        """With what is not None in place of one's own; nothing holds for another source as well."""
        keys = dict(data_dir=data_dir, image_key=image_key, label_key=label_key, labels=labels)
        given = {name: value for name, value in keys.items() if value is not None}
        return Origin(source=source, **given) if source else replace(self, **given)
