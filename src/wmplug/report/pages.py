"""The template environment of all pages: it escapes everything, and a missing name is an error."""

from wmplug.extras import need

with need("evidence"):
    import jinja2


def environment() -> jinja2.Environment:
    """A new environment, to which a page adds its own filters."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("wmplug.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
