"""Draws portraits for given ages, as stand-ins for photographs.

Proportions, hair, wrinkles and skin change smoothly with age and vary between people. Skin tone, hair colour, light, pose, background,
glasses, beards and hats carry little or no information about age.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Colour = tuple[int, int, int]
Point = tuple[float, float]

FINE = 128  # pixels: smaller portraits are drawn at twice their size and reduced
WINDOW = 0.78  # share of the canvas that is in the picture
HAIR: tuple[Colour, ...] = ((28, 22, 20), (58, 38, 26), (92, 60, 36), (140, 100, 56), (196, 160, 96), (150, 70, 36))
GREY_HAIR: Colour = (206, 204, 200)
LIGHT_SKIN, DARK_SKIN = (240, 205, 182), (96, 62, 44)
IRIS: tuple[Colour, ...] = ((70, 46, 30), (96, 70, 40), (70, 100, 130), (80, 110, 80))


def _mix(first: Colour, second: Colour, share: float) -> Colour:
    r, g, b = (round(a + (b - a) * min(max(share, 0.0), 1.0)) for a, b in zip(first, second, strict=True))
    return r, g, b


def _ramp(value: float) -> float:
    """The logistic function: 0 to 1, 0.5 at 0."""
    return 1 / (1 + math.exp(-value))


@dataclass(frozen=True, kw_only=True)
class Person:
    """The traits of a face. Lengths are relative to the picture's side, strengths range from 0 to about 1."""

    growth: float  # 0: newborn, 1: adult
    wrinkles: float
    sagging: float
    spots: float  # expected number
    skin: Colour
    hair: Colour
    brows: Colour
    hair_amount: float
    receding: float
    long_hair: bool
    lips: float  # thickness relative to a young adult's
    beard: float
    glasses: bool
    hat: bool
    width: float
    height: float
    eyes: float  # height of the eye line within the head, 0 at the top
    smile: float


def person_of(rng: Generator, age: float, *, female: bool) -> Person:
    """Draw a random person who looks about `age` years old; each trait has its own apparent age."""

    def looks(spread: float) -> float:
        """The apparent age of a trait, which varies more in older people."""
        return max(0.0, age + general + rng.normal(0, spread * (0.3 + age / 50)))

    general = rng.normal(0, 1.0 + age / 22)  # overall deviation: some people look younger
    growth = 1 - math.exp(-((looks(1.5) / 11) ** 1.25))
    grey = _ramp((looks(5) - 54) / 6)
    skin = _mix(LIGHT_SKIN, DARK_SKIN, rng.beta(1.0, 2.2))
    skin = _mix(skin, (200, 110, 100), 0.12 * rng.random())
    hair = _mix(_mix(HAIR[rng.integers(len(HAIR))], HAIR[rng.integers(len(HAIR))], rng.random()), GREY_HAIR, grey)
    grown_man = not female and age > 17
    return Person(
        growth=growth,
        wrinkles=max(0.0, (looks(4) - 22) / 62),
        sagging=max(0.0, (looks(5) - 32) / 55),
        spots=max(0.0, looks(5) - 45) * 0.3,
        skin=_mix(skin, (190, 176, 160), 0.35 * _ramp((looks(5) - 66) / 9)),
        hair=hair,
        brows=_mix(hair, skin, 0.65 - 0.5 * growth),
        hair_amount=min(1.0, 0.15 + looks(0.6) / 3),
        receding=_ramp((looks(9) - 58) / 10) * (0.25 if female else rng.choice([0.4, 1.0])),
        long_hair=bool(rng.random() < (0.75 if female else 0.06)) and age > 2,
        lips=(1.15 if female else 0.95) * (1.1 - 0.55 * max(0.0, (looks(4) - 25) / 65)),
        beard=float(grown_man and rng.random() < 0.3) * rng.uniform(0.4, 1.0),
        glasses=bool(rng.random() < 0.08 + 0.1 * (age > 40)) and age > 3,
        hat=bool(rng.random() < 0.05),
        width=0.29 - 0.03 * growth + 0.02 * (growth > 0.5) * (not female) + rng.normal(0, 0.008),
        height=0.325 + 0.055 * growth + rng.normal(0, 0.008),
        eyes=0.60 - 0.11 * growth + rng.normal(0, 0.008),
        smile=rng.normal(0.3, 0.5),
    )


class _Canvas:
    """Draws in coordinates relative to the picture's side; (0, 0) is its upper left corner."""

    def __init__(self, image: Image.Image) -> None:
        self.draw, self.unit = ImageDraw.Draw(image), WINDOW * image.width
        self.margin = (image.width - self.unit) / 2

    def at(self, points: list[Point]) -> list[Point]:
        return [(self.margin + self.unit * x, self.margin + self.unit * y) for x, y in points]

    def box(self, x: float, y: float, rx: float, ry: float) -> list[Point]:
        return self.at([(x - rx, y - ry), (x + rx, y + ry)])

    def ellipse(self, x: float, y: float, rx: float, ry: float, fill: Colour | int) -> None:
        self.draw.ellipse(self.box(x, y, rx, ry), fill=fill)

    def ring(self, x: float, y: float, rx: float, ry: float, fill: Colour, width: float) -> None:
        self.draw.ellipse(self.box(x, y, rx, ry), outline=fill, width=max(1, round(width * self.unit)))

    def shape(self, points: list[Point], fill: Colour | int) -> None:
        self.draw.polygon(self.at(points), fill=fill)

    def line(self, points: list[Point], fill: Colour | int, width: float) -> None:
        self.draw.line(self.at(points), fill=fill, width=max(1, round(width * self.unit)), joint="curve")


def _bow(x0: float, x1: float, y: float, sag: float, steps: int = 7) -> list[Point]:
    """A curve from (x0, y) to (x1, y) whose middle is lower by `sag`."""
    return [(x0 + (x1 - x0) * k / (steps - 1), y + sag * (1 - (2 * k / (steps - 1) - 1) ** 2)) for k in range(steps)]


def draw_portrait(rng: Generator, age: float, *, female: bool, width: int, height: int) -> Image.Image:
    """A random RGB portrait of `width` × `height` pixels of a person aged `age` years."""
    person = person_of(rng, age, female=female)
    side = math.ceil(max(width, height) / WINDOW)
    side *= 2 if max(width, height) < FINE else 1
    canvas = Image.new("RGB", (side, side), _any_colour(rng))
    _draw_background(rng, canvas)
    face = _Face(person, rng)
    face.paint(_Canvas(canvas))
    folds = Image.new("L", (side, side))
    face.fold(_Canvas(folds))
    folds = folds.filter(ImageFilter.BoxBlur(side * 0.005))
    return _photograph(rng, canvas, folds, width, height)


def _draw_background(rng: Generator, image: Image.Image) -> None:
    canvas = _Canvas(image)
    for _ in range(3):
        x, y, rx, ry = rng.uniform(0, 1), rng.uniform(0, 1), rng.uniform(0.1, 0.5), rng.uniform(0.1, 0.5)
        canvas.draw.rectangle(canvas.box(x, y, rx, ry), fill=_any_colour(rng))


def _any_colour(rng: Generator) -> Colour:
    r, g, b = rng.integers(10, 246, 3).tolist()
    grey = (r + g + b) // 3
    return _mix((r, g, b), (grey, grey, grey), rng.random())


class _Face:
    """Positions of the parts of a person's face, and their drawing."""

    def __init__(self, person: Person, rng: Generator) -> None:
        self.person, self.rng = person, rng
        p = person
        self.x, self.y = 0.5, 0.52
        self.top, self.bottom = self.y - p.height, self.y + p.height
        self.eye_y = self.top + 2 * p.height * p.eyes
        self.eye_x = p.width * (0.46 - 0.02 * p.growth)
        self.eye_r = 0.072 - 0.024 * p.growth
        face = self.bottom - self.eye_y
        self.nose_y = self.eye_y + face * (0.36 + 0.06 * p.growth)
        self.mouth_y = self.eye_y + face * (0.63 + 0.02 * p.growth)
        self.mouth_w = 0.06 + 0.045 * p.growth
        self.hairline = self.top + 2 * p.height * (0.17 - 0.10 * p.receding)
        self.shade = _mix(p.skin, (60, 30, 24), 0.35)

    def paint(self, c: _Canvas) -> None:
        """Draw the face in colour, from back to front."""
        p = self.person
        shirt = _any_colour(self.rng)
        back = _mix(p.skin, p.hair, p.hair_amount)
        if p.long_hair:
            c.ellipse(self.x, self.y + 0.10, p.width + 0.075, p.height + 0.10, back)
        c.shape(
            [(self.x - 0.11, self.y), (self.x + 0.11, self.y), (self.x + 0.13, 1.1), (self.x - 0.13, 1.1)], _mix(self.shade, p.skin, 0.4)
        )
        c.ellipse(self.x, 1.22, 0.30 + 0.14 * p.growth, 0.27, shirt)
        c.ellipse(self.x, self.y - 0.035, p.width + 0.028, p.height + 0.012, back)
        ear = 0.055 + 0.02 * p.growth + 0.025 * p.sagging
        for side in (-1, 1):
            c.ellipse(self.x + side * p.width, self.eye_y + 0.04, 0.03, ear, _mix(p.skin, self.shade, 0.4))
        self._paint_head(c, back)
        for side in (-1, 1):
            self._paint_eye(c, side)
        self._paint_nose_and_mouth(c)
        self._paint_extras(c)

    def _paint_head(self, c: _Canvas, back: Colour) -> None:
        p = self.person
        c.ellipse(self.x, self.y, p.width, p.height, p.skin)
        jaw = 0.50 + 0.07 * p.sagging  # the lower face broadens as it sags
        for side in (-1, 1):
            c.ellipse(self.x + side * p.width * 0.40, self.mouth_y + 0.015 * p.sagging, p.width * jaw, 0.125, p.skin)
        if p.growth < 0.8:  # round, red cheeks
            for side in (-1, 1):
                c.ellipse(
                    self.x + side * p.width * 0.55, self.nose_y + 0.03, 0.07, 0.05, _mix(p.skin, (226, 120, 110), 0.3 * (0.8 - p.growth))
                )
        fringe = _bow(self.x - p.width, self.x + p.width, self.hairline + 0.16, -0.16 - 0.05 * p.receding, 11)
        crown = [
            (self.x + (p.width + 0.01) * math.cos(a), self.y - p.height * 1.03 * math.sin(a)) for a in np.linspace(0.35, math.pi - 0.35, 11)
        ]
        c.shape([*fringe, *crown], _mix(p.skin, back, 1 - 0.75 * p.receding**2))
        if p.beard:
            tone = _mix(p.skin, p.hair, 0.75 * p.beard)
            low = [
                (self.x + p.width * 0.93 * math.cos(a), self.mouth_y - 0.05 + (self.bottom - self.mouth_y + 0.055) * math.sin(a))
                for a in np.linspace(0, math.pi, 13)
            ]
            c.shape([*low, (self.x - 0.1, self.mouth_y - 0.045), (self.x + 0.1, self.mouth_y - 0.045)], tone)
        for _ in range(self.rng.poisson(p.spots)):
            x, y = self.x + self.rng.uniform(-0.85, 0.85) * p.width, self.y + self.rng.uniform(-0.6, 0.8) * p.height
            c.ellipse(x, y, 0.009, 0.007, _mix(p.skin, (90, 52, 36), self.rng.uniform(0.15, 0.45)))

    def _paint_eye(self, c: _Canvas, side: int) -> None:
        p, x, y, r = self.person, self.x + side * self.eye_x, self.eye_y, self.eye_r
        opening = r * max(0.22, 0.72 - 0.14 * p.growth - 0.2 * p.sagging)
        c.ellipse(x, y, r * 1.12, opening * 1.25 + 0.006, _mix(p.skin, self.shade, 0.35 + 0.3 * p.sagging))
        c.ellipse(x, y, r, opening, _mix((246, 244, 240), (216, 200, 180), p.sagging))
        iris = min(r * 0.58, opening * 1.05)
        tone = IRIS[self.person.hair[0] * 7 % len(IRIS)]
        c.ellipse(x, y, iris, iris, tone)
        c.ellipse(x, y, iris * 0.5, iris * 0.5, (16, 12, 12))
        c.line(_bow(x - r * 1.1, x + r * 1.1, y - opening * 0.35, -opening * 0.8), _mix(self.shade, (20, 14, 12), 0.6), 0.008)
        drop = 0.018 * p.sagging
        brow = _bow(x - r * 1.35, x + r * 1.35, y - r * 1.05 - 0.018 + drop, -0.018)
        c.line(brow, p.brows, 0.012 + 0.012 * p.growth)

    def _paint_nose_and_mouth(self, c: _Canvas) -> None:
        p = self.person
        half = 0.026 + 0.018 * p.growth + 0.008 * p.sagging
        c.line(
            [(self.x - half * 0.5, self.eye_y + 0.02), (self.x - half * 0.7, self.nose_y)], _mix(p.skin, self.shade, 0.5 * p.growth), 0.008
        )
        c.ellipse(self.x, self.nose_y, half, half * 0.62, _mix(p.skin, self.shade, 0.3))
        for side in (-1, 1):
            c.ellipse(self.x + side * half * 0.55, self.nose_y + half * 0.3, 0.009, 0.006, _mix(self.shade, (20, 8, 8), 0.5))
        thick = 0.026 * p.lips
        curve = 0.03 * p.smile - 0.02 * p.sagging
        upper = _bow(self.x - self.mouth_w, self.x + self.mouth_w, self.mouth_y - curve * 0.5, curve - thick * 0.7)
        lower = _bow(self.x - self.mouth_w, self.x + self.mouth_w, self.mouth_y - curve * 0.5, curve + thick * 1.2)
        c.shape([*upper, *lower[::-1]], _mix(_mix(p.skin, (186, 70, 72), 0.62), p.skin, 0.5 * p.sagging))
        c.line(
            _bow(self.x - self.mouth_w, self.x + self.mouth_w, self.mouth_y - curve * 0.5, curve),
            _mix(self.shade, (60, 16, 16), 0.6),
            0.006,
        )

    def _paint_extras(self, c: _Canvas) -> None:
        p = self.person
        if p.glasses:
            tone: Colour = (30, 26, 26) if p.skin[0] % 2 else (120, 90, 50)
            for side in (-1, 1):
                c.ring(self.x + side * self.eye_x, self.eye_y + 0.005, self.eye_r * 1.6, self.eye_r * 1.35, tone, 0.011)
            c.line([(self.x - 0.03, self.eye_y), (self.x + 0.03, self.eye_y)], tone, 0.010)
        if p.hat:
            tone = _any_colour(self.rng)
            y = self.top + 0.35 * p.height
            c.ellipse(self.x, y - 0.06, p.width * 1.08, 0.20, tone)
            c.ellipse(self.x, y + 0.02, p.width * 1.35, 0.05, _mix(tone, (0, 0, 0), 0.3))

    def fold(self, c: _Canvas) -> None:
        """Draw the mask of wrinkles and folds: 0 to 255, the strength of darkening."""
        p, x, w = self.person, self.x, self.person.wrinkles
        deep = round(min(255, 40 + 235 * w)) if w > 0 else 0
        if deep:
            gap = (self.eye_y - self.eye_r - 0.05 - self.hairline) / 4
            for k in range(min(4, 1 + int(4.5 * w))):
                spread = p.width * (0.62 - 0.06 * k)
                c.line(_bow(x - spread, x + spread, self.hairline + gap * (3.4 - 0.9 * k), -0.014), deep, 0.007 + 0.006 * w)
            for side in (-1, 1):
                outer = x + side * (self.eye_x + self.eye_r * 1.25)
                for slope in (-0.5, 0.0, 0.5)[: 1 + int(3 * min(w, 0.99))]:
                    c.line(
                        [(outer, self.eye_y + slope * 0.03), (outer + side * (0.03 + 0.045 * w), self.eye_y + slope * 0.10)],
                        deep,
                        0.006 + 0.004 * w,
                    )
                c.line([(x + side * 0.012, self.eye_y - 0.02), (x + side * 0.016, self.eye_y - 0.055)], deep // 2, 0.006)
        for side in (-1, 1):
            bag = round(min(200.0, 60 * p.growth + 190 * p.sagging))
            bow = _bow(
                x + side * self.eye_x - self.eye_r,
                x + side * self.eye_x + self.eye_r,
                self.eye_y + self.eye_r * 0.75,
                0.016 + 0.012 * p.sagging,
            )
            c.line(bow, bag, 0.008 + 0.008 * p.sagging)
            nose = (x + side * (0.045 + 0.01 * p.growth), self.nose_y)
            cheek = (x + side * (self.mouth_w + 0.025), self.mouth_y - 0.005)
            c.line([nose, cheek], round(min(230.0, 25 * p.growth + 215 * p.sagging)), 0.008 + 0.008 * p.sagging)
            if p.sagging > 0.2:
                jowl = (x + side * (self.mouth_w + 0.022), self.mouth_y + 0.10)
                c.line([(x + side * (self.mouth_w + 0.012), self.mouth_y + 0.015), jowl], round(min(220.0, 230 * (p.sagging - 0.2))), 0.009)
                c.ellipse(x + side * p.width * 0.70, self.nose_y + 0.045, 0.03, 0.06, round(min(55.0, 70 * (p.sagging - 0.2))))


def _photograph(rng: Generator, canvas: Image.Image, folds: Image.Image, width: int, height: int) -> Image.Image:
    """A photograph of the canvas: with random pose, light, blur and noise."""
    side = canvas.width
    zoom, angle = WINDOW * rng.uniform(0.9, 1.08), rng.normal(0, math.radians(5))
    middle = side / 2 + side * rng.normal(0, 0.018, 2)
    factor = 2 if side > 2 * max(width, height) else 1
    w, h = factor * width, factor * height
    a, b = zoom * side / w * math.cos(angle), zoom * side / h * math.sin(angle)
    d, e = -zoom * side / w * math.sin(angle), zoom * side / h * math.cos(angle)
    matrix = (a, b, middle[0] - (a * w + b * h) / 2, d, e, middle[1] - (d * w + e * h) / 2)
    layers = Image.merge("CMYK", (*canvas.split(), folds))  # any mode of four bands: one transform is cheaper than two
    layers = layers.transform((w, h), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR).reduce(factor)
    pixels = np.asarray(layers, dtype=np.float32)
    shade = _light(rng, width, height) * (1 - pixels[..., 3] * (0.55 / 255))
    pixels = pixels[..., :3] * (shade[..., None] * rng.uniform(0.9, 1.1, 3).astype(np.float32))
    pixels += rng.standard_normal((height, width, 1), dtype=np.float32) * rng.uniform(1, 9)
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    return image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.8) * width / 64)) if rng.random() < 0.3 else image


def _light(rng: Generator, width: int, height: int) -> NDArray[np.float32]:
    """Brightness (height, width): a random gradient."""
    x, y = np.linspace(-0.5, 0.5, width, dtype=np.float32), np.linspace(-0.5, 0.5, height, dtype=np.float32)
    across, down = rng.normal(0, 0.35, 2).astype(np.float32)
    return np.asarray(rng.uniform(0.65, 1.15) * (1 + across * x[None, :] + down * y[:, None]), dtype=np.float32)
