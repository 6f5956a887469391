"""
The colours of pages and charts, for light and for dark screens.

Text has a contrast of at least 4.5 with what it stands on, lines and marks of 3 (WCAG 2.2, AA). The series are the
hues of Okabe and Ito, which people with any colour vision tell apart, darkened or lightened for that contrast.
"""

from __future__ import annotations

LIGHT = {
    "paper": "#ffffff",
    "panel": "#f3f4f6",
    "ink": "#1b1d21",
    "muted": "#565b63",
    "rule": "#858a93",
    "link": "#0a58a6",
    "series-1": "#0072b2",
    "series-2": "#c04f00",
    "series-3": "#00563f",
    "series-4": "#a8447f",
    "series-5": "#8c6500",
    "series-6": "#4b4f57",
}
"""Names of the CSS variables and their colours on white, on paper as well."""

DARK = {
    "paper": "#15181d",
    "panel": "#20242b",
    "ink": "#e9ebee",
    "muted": "#b0b6c0",
    "rule": "#7d8591",
    "link": "#8cc4ff",
    "series-1": "#56b4e9",
    "series-2": "#ff9a5c",
    "series-3": "#93efd0",
    "series-4": "#e79bc8",
    "series-5": "#f0e442",
    "series-6": "#c3c7ce",
}
"""The same for dark screens."""

SERIES = tuple(name for name in LIGHT if name.startswith("series-"))
"""Names of the colours that tell series of a chart apart."""
