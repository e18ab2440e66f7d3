// Draws the map on a plain canvas, where there is no WebGL or only a slow one: pictures one by one, and where points are small their
// pixels at once, which takes a few milliseconds for 100,000.

import { DIM, NONE, POINTED, SELECTED } from "./scene.js";

const SMALL = 5; // CSS pixels up to which a picture is a square of its colour
const ATLAS_SIDE = 2048;
const DISC = 5;

export class Drawing {
  kind = "canvas";
  slots = 256;

  constructor(canvas, scene) {
    this.context = canvas.getContext("2d");
    this.scene = scene;
    this.atlases = [];
    this.details = new Map();
    this.xy = new Float32Array(2 * scene.count);
  }

  prepareAtlases(count, cell) {
    this.cell = cell;
    this.columns = ATLAS_SIDE / cell;
  }

  setAtlas(number, bitmap) {
    this.atlases[number] = bitmap;
  }

  get detailSize() {
    return {};
  }

  setDetail(slot, point, bitmap, before) {
    if (before >= 0) {
      this.details.get(before)?.close();
      this.details.delete(before);
    }
    this.details.set(point, bitmap);
  }

  layoutChanged() {}

  statesChanged() {}

  setColours(look) {
    this.look = look;
    const { points } = look;
    const pack = ([red, green, blue]) => (255 << 24) | (blue << 16) | (green << 8) | red;
    const faded = (part, whole) => Math.round(part + (look.paper[whole] - part) * 0.86);
    this.light = new Uint32Array(this.scene.count);
    this.dim = new Uint32Array(this.scene.count);
    for (let i = 0; i < this.scene.count; i++) {
      const colour = [points[3 * i], points[3 * i + 1], points[3 * i + 2]];
      this.light[i] = pack(colour);
      this.dim[i] = pack(colour.map(faded));
    }
    this.accent = pack(look.accent);
  }

  /** Where all points are on the screen now, in its own pixels. */
  #locate(camera, progress, ratio) {
    const { before, layout, count } = this.scene;
    const [across, down] = camera.scales.map((scale) => (scale * ratio) / 65535);
    const [left, top] = camera.toScreen(0, 0).map((place) => place * ratio);
    const [from, to, xy] = [before.places, layout.places, this.xy];
    for (let i = 0; i < count; i++) {
      let share = 1;
      if (progress < 1) {
        const late = ((i * 0.6180339887) % 1) * 0.35;
        share = Math.min(1, Math.max(0, (progress - late) / 0.65));
        share = share * share * (3 - 2 * share);
      }
      xy[2 * i] = (from[2 * i] + (to[2 * i] - from[2 * i]) * share) * across + left;
      xy[2 * i + 1] = (from[2 * i + 1] + (to[2 * i + 1] - from[2 * i + 1]) * share) * down + top;
    }
  }

  draw(camera, { size, progress, ratio }) {
    this.#locate(camera, progress, ratio);
    const { width, height } = this.context.canvas;
    this.context.clearRect(0, 0, width, height);
    if (size <= SMALL || !this.scene.pictures) this.#drawPixels(Math.max(2, Math.round(Math.min(size, 2 * DISC) * ratio * 0.9)));
    if (size > SMALL) this.#drawPictures(size * ratio);
  }

  #drawPixels(side) {
    const { width, height } = this.context.canvas;
    if (this.pixels?.width !== width || this.pixels?.height !== height) {
      this.pixels = this.context.createImageData(width, height);
      this.words = new Uint32Array(this.pixels.data.buffer);
    }
    this.words.fill(0);
    // Dim ones first, so that light ones lie above them.
    for (const wanted of this.scene.dimmed ? [DIM, 0] : [0]) {
      for (let i = 0; i < this.scene.count; i++) {
        const state = this.scene.states[i];
        if ((state & DIM) === wanted) this.#square(i, side, wanted ? this.dim[i] : state ? this.accent : this.light[i]);
      }
    }
    this.context.putImageData(this.pixels, 0, 0);
  }

  #square(point, side, colour) {
    const { width, height } = this.pixels;
    const left = Math.round(this.xy[2 * point] - side / 2);
    const top = Math.round(this.xy[2 * point + 1] - side / 2);
    if (left >= width || top >= height || left + side <= 0 || top + side <= 0) return;
    const [first, last, end] = [Math.max(left, 0), Math.min(left + side, width), Math.min(top + side, height)];
    for (let y = Math.max(top, 0); y < end; y++) {
      for (let place = y * width + first; place < y * width + last; place++) this.words[place] = colour;
    }
  }

  #drawPictures(size) {
    const { context, scene, xy } = this;
    const { width, height } = context.canvas;
    const layers = [[], [], [], []];
    for (let i = 0; i < scene.count; i++) {
      if (xy[2 * i] < -size || xy[2 * i] > width + size || xy[2 * i + 1] < -size || xy[2 * i + 1] > height + size) continue;
      const state = scene.states[i];
      if (!scene.pictures && !this.details.has(i)) continue;
      layers[state & POINTED ? 3 : state & SELECTED ? 2 : state & DIM ? 0 : 1].push(i);
    }
    for (const layer of layers) for (const point of layer) this.#drawPicture(point, size);
    context.globalAlpha = 1;
  }

  #drawPicture(point, size) {
    const { context, scene } = this;
    const state = scene.states[point];
    const longer = state & POINTED ? size * 1.3 : size;
    const [w, h] = [longer * Math.min(1, scene.ratios[point]), longer * Math.min(1, 1 / scene.ratios[point])];
    const [x, y] = [this.xy[2 * point] - w / 2, this.xy[2 * point + 1] - h / 2];
    if (state & (SELECTED | POINTED)) {
      const line = Math.max(1.5, Math.min(0.09 * size, 4));
      context.fillStyle = `rgb(${this.look.accent.join(" ")})`;
      context.fillRect(x - line, y - line, w + 2 * line, h + 2 * line);
    }
    context.globalAlpha = state & DIM ? 0.14 : 1;
    const detail = this.details.get(point);
    const cell = scene.cells[point];
    const atlas = cell === NONE ? undefined : this.atlases[Math.floor(cell / this.columns ** 2)];
    if (detail) {
      context.drawImage(detail, x, y, w, h);
    } else if (atlas) {
      const [column, row] = [cell % this.columns, Math.floor((cell % this.columns ** 2) / this.columns)];
      context.drawImage(atlas, column * this.cell, row * this.cell, this.cell, this.cell, x, y, w, h);
    } else {
      context.fillStyle = `rgb(${this.look.points.subarray(3 * point, 3 * point + 3).join(" ")})`;
      context.fillRect(x, y, w, h);
    }
    context.globalAlpha = 1;
  }
}
