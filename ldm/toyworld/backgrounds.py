"""The five backgrounds of ToyWorld: smooth pictures with a sky or wall above a horizon and ground below it."""

from collections.abc import Callable, Sequence

import numpy as np

Colour = Sequence[float]


class Painting:
    """A picture being painted from back to front, and the few random numbers that vary it.

    x, y and heights run from 0 to 1, left to right and top to bottom.
    """

    def __init__(self, size: int, rng: np.random.Generator):
        self.size, self.rng = size, rng
        self.horizon = float(rng.uniform(0.4, 0.56))
        self.tone = rng.uniform(-0.08, 0.08)  # lightness of the background
        self.phase = rng.uniform(0, 6.3)  # of hills and waves
        self.side = rng.uniform(0.12, 0.88)  # x of the light source
        self.line = (np.arange(size, dtype=np.float32) + 0.5) / size
        self.x, self.y = self.line[None], self.line[:, None]
        self.picture = np.zeros((size, size, 3), np.float32)

    def sky(self, *colours: Colour) -> None:
        """Fill the picture with a gradient that ends at the horizon."""
        self.picture = self._rows(np.clip(self.line / self.horizon, 0, 1), colours)

    def layer(self, edge: np.ndarray | float, *colours: Colour, softness: float = 1.0, stretch: float = 1.0) -> None:
        """Paint everything below `edge` (a height per column): one colour, or a gradient from the horizon downwards.

        `softness` is the edge's width in pixels; a gradient with `stretch` 3 ends after a third of the ground.
        """
        depth = np.clip((self.line - self.horizon) / (1 - self.horizon), 0, 1) * stretch
        cover = np.clip((self.y - edge) * self.size / softness + 0.5, 0, 1) * np.ones_like(self.x)
        self.picture = self.picture + (self._rows(depth, colours) - self.picture) * cover[..., None]

    def sun(self, height: float, radius: float, colour: Colour, halo: float) -> None:
        """Paint a disc at (side, height) with a glow around it."""
        distance = np.hypot(self.x - self.side, self.y - height)
        disc = np.clip((radius - distance) * self.size + 0.5, 0, 1)
        strength = np.maximum(disc, halo * np.exp(-((distance / (3 * radius)) ** 2)))
        self.picture = self.picture + (np.asarray(colour, np.float32) - self.picture) * strength[..., None]

    def _rows(self, position: np.ndarray, colours: Sequence[Colour]) -> np.ndarray:
        stops = np.linspace(0, 1, len(colours))
        rows = np.stack([np.interp(position, stops, [c[k] for c in colours]) for k in range(3)], -1)
        return np.broadcast_to(rows.astype(np.float32)[:, None], (self.size, self.size, 3))


def shade(colour: Colour, amount: float) -> np.ndarray:
    """Mix a colour with white for a positive amount, with black for a negative one."""
    colour = np.asarray(colour, np.float32)
    return colour + (255 - colour) * amount if amount > 0 else colour * (1 + amount)


def _meadow(p: Painting) -> None:
    p.sky(shade((92, 168, 236), p.tone), (206, 232, 250))
    p.sun(0.14, 0.065, (255, 244, 190), halo=0.5)
    p.layer(p.horizon - 0.05 + 0.05 * np.sin(5 * p.x + p.phase), shade((124, 184, 112), p.tone))
    p.layer(p.horizon + 0.02 * np.sin(3 * p.x + 2 * p.phase), (142, 202, 92), shade((92, 164, 62), p.tone))


def _beach(p: Painting) -> None:
    shore = p.horizon + 0.13 + 0.015 * np.sin(7 * p.x + p.phase)
    p.sky(shade((110, 190, 240), p.tone), (226, 243, 250))
    p.layer(p.horizon, shade((30, 112, 176), p.tone), (70, 176, 206), stretch=3)
    p.layer(shore - 0.02, (236, 246, 248), softness=2)
    p.layer(shore, (232, 206, 152), (244, 222, 172), shade((238, 208, 150), p.tone), softness=2)


def _indoors(p: Painting) -> None:
    walls = ((236, 226, 210), (206, 220, 214), (214, 214, 232), (240, 216, 206))
    wall = walls[int(p.rng.integers(len(walls)))]
    p.sky(shade(wall, 0.1), shade(wall, -0.1))
    p.picture = p.picture * (1.04 - 0.1 * np.abs(p.x - p.side))[..., None]
    p.layer(p.horizon, shade((156, 112, 78), p.tone), shade((198, 152, 110), p.tone))
    skirting = np.clip(1.5 - np.abs(p.y - p.horizon + 0.02) * p.size / 0.8, 0, 1) * np.ones_like(p.x)
    p.picture = p.picture + (np.float32(250) - p.picture) * skirting[..., None] * 0.9


def _sunset(p: Painting) -> None:
    p.sky(shade((92, 66, 140), p.tone), (232, 112, 116), (255, 192, 108))
    p.sun(p.horizon - 0.05, 0.1, (255, 236, 160), halo=0.6)
    p.layer(p.horizon - 0.04 + 0.04 * np.sin(4 * p.x + p.phase), shade((108, 74, 122), p.tone))
    p.layer(p.horizon + 0.01 * np.sin(3 * p.x - p.phase), (118, 88, 122), shade((88, 68, 104), p.tone))


def _snow(p: Painting) -> None:
    p.sky(shade((150, 182, 212), p.tone), (220, 232, 242))
    p.layer(p.horizon + 0.02 - 0.26 * np.abs(((p.x * 1.7 + p.phase) % 1) - 0.5), shade((150, 172, 200), p.tone))
    p.layer(p.horizon + 0.02 * np.sin(4 * p.x + p.phase), (248, 250, 254), shade((212, 224, 240), p.tone / 2))


# name -> (painter, words for captions)
BACKGROUNDS: dict[str, tuple[Callable[[Painting], None], str]] = {
    "meadow": (_meadow, "on a meadow"),
    "beach": (_beach, "on a beach"),
    "room": (_indoors, "in a room"),
    "sunset": (_sunset, "at sunset"),
    "snow": (_snow, "in the snow"),
}


def paint_background(name: str, size: int, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Paint a background: a picture (size, size, 3) float32 in 0..255, and the height of its horizon in 0..1."""
    painting = Painting(size, rng)
    BACKGROUNDS[name][0](painting)
    return painting.picture, painting.horizon
