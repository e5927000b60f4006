"""Docstrings write equations as Sphinx reads them; the site's Markdown has dollars."""

import re

import griffe


class RestMath(griffe.Extension):
    """Turn reST's math roles and directives, and its ``::`` before a block, into Markdown."""

    def on_instance(self, *, obj: griffe.Object, **_: object) -> None:
        """Rewrite a docstring once its object is loaded."""
        if obj.docstring:
            text = re.sub(r":math:`([^`]+)`", r"$\1$", obj.docstring.value)
            text = re.sub(r"\.\. math:: ((?:.+\n?)(?:[ ]+.+\n?)*)", r"$$\n\1\n$$\n", text)
            obj.docstring.value = re.sub(r"\.?\s*::$", ":", text, flags=re.MULTILINE)
