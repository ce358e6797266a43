"""Renders colours and depth of a room, with one ray per pixel.

P pixels, B boxes, S surfaces: six sides of the room, then the boxes. Lengths are metres; x runs along the width, y along the length, z up.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

PLAIN, STRIPES, TILES, CHECKS, BOARDS = range(5)  # kinds of texture
FOCAL = 0.81  # focal length over width of NYU Depth V2's sensor
HAZE, HAZE_COLOUR = 24.0, (0.62, 0.64, 0.68)  # after HAZE metres, 63 % of a colour is the haze's
GRAIN = 30.0  # spots per metre of surface
FALL_OFF = 3.0  # metres at which a lamp has half its light
BLOCK = 2**15  # pixels per block


@dataclass(frozen=True, kw_only=True, eq=False)
class Room:
    """A box seen from inside, with boxes in it."""

    size: Floats  # (3,)
    low: Floats  # (B, 3) corners of the boxes
    high: Floats  # (B, 3)
    colours: Floats  # (S, 2, 3) in 0 to 1: the ground, and the pattern on it
    textures: NDArray[np.int64]  # (S,) kinds
    periods: Floats  # (S,) of the patterns
    lamp: Floats  # (3,)
    ambient: float  # share of ambient light


@dataclass(frozen=True, kw_only=True, eq=False)
class Camera:
    """Position and direction: rotated from the y axis to the left by `yaw`, then up by `pitch`, then by `roll`, in radians."""

    at: Floats  # (3,)
    yaw: float
    pitch: float
    roll: float

    def rays(self, width: int, height: int) -> Floats:
        """Directions (3, height · width), scaled so that 1 is 1 m along the camera's axis."""
        right = (np.arange(width) + 0.5 - width / 2) / (FOCAL * width)
        up = -(np.arange(height) + 0.5 - height / 2) / (FOCAL * width)
        x, z = (grid.ravel() for grid in np.meshgrid(right, up))
        x, z = x * np.cos(self.roll) - z * np.sin(self.roll), x * np.sin(self.roll) + z * np.cos(self.roll)
        y, z = np.cos(self.pitch) - z * np.sin(self.pitch), np.sin(self.pitch) + z * np.cos(self.pitch)
        x, y = x * np.cos(self.yaw) - y * np.sin(self.yaw), x * np.sin(self.yaw) + y * np.cos(self.yaw)
        rays = np.stack([x, y, z]).astype(np.float32)
        return np.where(np.abs(rays) < 1e-6, np.float32(1e-6), rays)


def render(room: Room, camera: Camera, *, width: int, height: int) -> tuple[Floats, Floats]:
    """Light (height, width, 3), about 0 to 1, and depth (height, width) in metres along the camera's axis."""
    rays = camera.rays(width, height)
    blocks = [_cast(room, camera, rays[:, start : start + BLOCK]) for start in range(0, rays.shape[1], BLOCK)]
    light, depth = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    return light.reshape(height, width, 3), depth.reshape(height, width)


def _cast(room: Room, camera: Camera, rays: Floats) -> tuple[Floats, Floats]:
    """Light (P, 3) and depth (P,) along rays (3, P)."""
    depth, surface, axis = _walls(room, camera.at, rays)
    if len(room.low):
        depth, surface, axis = _boxes(room, camera.at, rays, depth, surface, axis)
    points = camera.at[:, None] + depth * rays
    light = _texture(room, points, surface, axis) * _light(room, rays, points, axis)[:, None]
    clear = np.exp(-depth / HAZE)[:, None]
    return light * clear + np.array(HAZE_COLOUR, dtype=np.float32) * 0.6 * (1 - clear), depth


def _walls(room: Room, at: Floats, rays: Floats) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
    """Depth, surface and axis of the normal (P,) of the room's sides."""
    ahead = rays > 0
    distances = (np.where(ahead, room.size[:, None], np.float32(0)) - at[:, None]) / rays
    axis = distances.argmin(0)
    pixels = np.arange(rays.shape[1])
    return distances[axis, pixels], 2 * axis + ahead[axis, pixels], axis


def _boxes(
    room: Room, at: Floats, rays: Floats, depth: Floats, surface: NDArray[np.int64], axis: NDArray[np.int64]
) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
    """Replace the values of `_walls` where a box is nearer (slab method)."""
    entry = np.full((len(room.low), rays.shape[1]), -np.inf, dtype=np.float32)
    leave, side = np.full_like(entry, np.inf), np.zeros(entry.shape, dtype=np.int8)
    for k in range(3):
        to_low = ((room.low[:, k] - at[k])[:, None]) / rays[k]
        to_high = ((room.high[:, k] - at[k])[:, None]) / rays[k]
        enters = np.minimum(to_low, to_high)
        np.copyto(side, k, where=enters > entry)
        np.maximum(entry, enters, out=entry)
        np.minimum(leave, np.maximum(to_low, to_high), out=leave)
    entry[(entry > leave) | (entry <= 0)] = np.inf
    box, pixels = entry.argmin(0), np.arange(rays.shape[1])
    nearest = entry[box, pixels]
    hit = nearest < depth
    return np.where(hit, nearest, depth), np.where(hit, 6 + box, surface), np.where(hit, side[box, pixels], axis)


def _texture(room: Room, points: Floats, surface: NDArray[np.int64], axis: NDArray[np.int64]) -> Floats:
    """Colours (P, 3) of the surfaces: a pattern and grain."""
    pixels = np.arange(len(axis))
    across, along = points[np.where(axis == 0, 1, 0), pixels], points[np.where(axis == 2, 1, 2), pixels]
    u, v = across / room.periods[surface], along / room.periods[surface]
    kind = room.textures[surface]
    marked = (
        ((kind == STRIPES) & (u % 1 < 0.5))
        | ((kind == TILES) & ((u % 1 < 0.07) | (v % 1 < 0.07)))
        | ((kind == CHECKS) & ((np.floor(u) + np.floor(v)) % 2 < 1))
        | ((kind == BOARDS) & ((u % 1 < 0.06) | ((v / 6 + np.floor(u) * 0.37) % 1 < 0.01)))
    )
    spots = np.sin(np.floor(across * GRAIN) * 12.9898 + np.floor(along * GRAIN) * 78.233 + surface) * 43758.547
    grain = 0.92 + 0.16 * (spots - np.floor(spots))
    return np.asarray(room.colours[surface, marked.astype(np.int64)] * grain[:, None], dtype=np.float32)


def _light(room: Room, rays: Floats, points: Floats, axis: NDArray[np.int64]) -> Floats:
    """Ambient light and light of the lamp (P,) on points (3, P)."""
    to_lamp, pixels = room.lamp[:, None] - points, np.arange(len(axis))
    distance = np.sqrt((to_lamp**2).sum(0))
    facing = -np.sign(rays[axis, pixels]) * to_lamp[axis, pixels] / distance  # the normal points at the camera
    lamp = 1.5 * np.maximum(facing, 0) / (1 + (distance / FALL_OFF) ** 2)
    return np.asarray(room.ambient + (1 - room.ambient) * lamp, dtype=np.float32)
