"""Draw the pictures of the concepts: ``python docs/pictures.py`` renews ``pictures/*.svg``.

A dot is a response, at the direction of its embedding; filled: right, hollow: wrong; its colour is its meaning. What
is written under a panel, gcpo has computed of these very dots.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from gcpo import recipe, signals

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#b0568f")
_SIZE = 210  # of a panel
_RADIUS = 72


def pictures() -> dict[str, str]:
    """Every picture, by the name of its file."""
    return {"anisotropic_gap.svg": _anisotropic(), "calibration_gap.svg": _calibration()}


def _anisotropic() -> str:
    """Two groups of the same entropy, whose meanings lie near together and far apart."""
    labels = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1]])
    angles = torch.tensor([[82.0, 86, 90, 94, 100, 104, 108, 112], [60.0, 66, 72, 78, 182, 188, 194, 200]])
    entropy = signals.semantic_entropy(labels.expand(2, 8)).tolist()
    dispersion = signals.cosine_dispersion(_directions(angles)).tolist()
    panels = [
        _panel(row, labels[0].tolist(), [1.0] * 8, [f"semantic entropy {se:.2f}", f"cosine dispersion {cd:.2f}"])
        for row, se, cd in zip(angles.tolist(), entropy, dispersion, strict=True)
    ]
    return _picture("Entropy counts meanings and does not see how far apart they lie", panels)


def _calibration() -> str:
    """The same directions with three sets of rewards, and what gcpo-cd makes of each."""
    angles = torch.tensor([[60.0, 66, 72, 78, 182, 188, 194, 200]]).expand(3, 8)
    rewards = torch.tensor([[1.0] * 4 + [0.0] * 4, [1.0] + [0.0] * 7, [0.0] * 8])
    out = recipe("gcpo-cd")(rewards, embeddings=_directions(angles))
    panels = [
        _panel(
            angles[i].tolist(),
            [0] * 4 + [1] * 4,
            rewards[i].tolist(),
            [
                f"cosine dispersion {out.signals['cosine_dispersion'][i]:.2f}",
                f"reward dispersion {out.signals['reward_dispersion'][i]:.2f}",
                f"weight {out.weights[i]:.2f}",
            ],
        )
        for i in range(3)
    ]
    return _picture("The same disagreement is worth what the rewards make of it", panels)


def _directions(angles: Tensor) -> Tensor:
    radians = angles * math.pi / 180
    return torch.stack([radians.cos(), radians.sin()], -1)


def _picture(title: str, panels: Sequence[list[str]]) -> str:
    width, height = _SIZE * len(panels), _SIZE + 62
    body = [f'<g transform="translate({i * _SIZE},0)">{"".join(panel)}</g>' for i, panel in enumerate(panels)]
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'role="img" font-family="system-ui, sans-serif" font-size="13" text-anchor="middle">',
        f"<title>{title}</title>",
        f'<rect width="{width}" height="{height}" rx="8" fill="#ffffff"/>',
        *body,
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _panel(angles: Iterable[float], labels: Iterable[int], rewards: Iterable[float], said: Iterable[str]) -> list[str]:
    return [
        f'<circle cx="{_SIZE / 2}" cy="{_SIZE / 2}" r="{_RADIUS}" fill="none" stroke="#c6ccd2"/>',
        *(_dot(*dot) for dot in zip(angles, labels, rewards, strict=True)),
        *_lines(said),
    ]


def _dot(angle: float, label: int, reward: float) -> str:
    x, y = (_SIZE / 2 + sign * _RADIUS * f(math.radians(angle)) for sign, f in ((1, math.cos), (-1, math.sin)))
    colour = _COLOURS[label]
    fill = colour if reward else "#ffffff"
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6" fill="{fill}" stroke="{colour}" stroke-width="2"/>'


def _lines(said: Iterable[str]) -> Iterator[str]:
    for row, text in enumerate(said):
        yield f'<text x="{_SIZE / 2}" y="{_SIZE + 8 + 18 * row}" fill="#1b2026">{text}</text>'


if __name__ == "__main__":
    folder = Path(__file__).parent / "pictures"
    folder.mkdir(exist_ok=True)
    for name, picture in pictures().items():
        (folder / name).write_text(picture, encoding="utf-8")
