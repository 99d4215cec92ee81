"""The web page: three files of our own, and nothing from anywhere else."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse

from .problems import Problem

router = APIRouter()

_FOLDER = Path(__file__).parent / "web"
_FILES = {"page.css": "text/css", "page.js": "text/javascript"}
_HEADERS = {
    # Texts of documents are shown here: whatever stands in them, nothing but our own files runs.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Asked each time whether it is still the one, so that page and service are of one version.
    "Cache-Control": "no-cache",
}


@router.get("/", include_in_schema=False)
def page() -> FileResponse:
    """The page."""
    return FileResponse(_FOLDER / "index.html", media_type="text/html", headers=_HEADERS)


@router.get("/static/{name}", include_in_schema=False)
def file(name: str) -> FileResponse:
    """What belongs to the page."""
    if name not in _FILES:
        raise Problem(404, "http-404", "No such path", "See /openapi.json for what there is.")
    return FileResponse(_FOLDER / name, media_type=_FILES[name], headers=_HEADERS)
